"""The colours of a drawn network."""

# Of arrows: dark skip, light dashed branch, grey trunk, readable without colour, too.
ARROWS = {"trunk": "#59616b", "branch": "#E69F00", "skip": "#00694e"}
BAND = "#f1f3f6"  # behind the boxes of a stage
LINE = "#2b3036"  # edges of boxes, and text
