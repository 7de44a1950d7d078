"""How results show themselves in notebooks: small pieces of HTML and SVG, in light and dark."""
