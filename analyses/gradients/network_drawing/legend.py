"""The legend of a drawn network."""

from matplotlib.axes import Axes

from analyses.gradients.network_drawing import marks
from analyses.gradients.network_drawing.marks import TIMES, Scale
from analyses.gradients.network_drawing.places import WIDTH


def draw_legend(axis: Axes, scale: Scale, *, with_skips: bool) -> None:
    """Draw what widths and colours of arrows mean; the kinds of arrow only if `with_skips`."""
    x = 10.0
    for relative in scale.samples:
        width = scale.width(relative)
        marks.sample_arrow(axis, x, 13, "trunk", width)
        beside = x + marks.head_size(width) / 2 + 3
        marks.text(axis, beside, 13, f"{relative:g}{TIMES}", 7, ha="left")
        x = beside + 30
    marks.text(
        axis, 4, 33, f"1{TIMES} = the gradient at the stage's end; {scale.words}", 7, ha="left"
    )
    kinds = {"trunk": "the whole gradient"}
    if with_skips:
        kinds |= {"branch": "through the branch", "skip": "along the skip"}
    x = 232.0
    for kind, words in kinds.items():
        marks.sample_arrow(axis, x, 13, kind, scale.width(1.0))
        marks.text(axis, x + 8, 13, words, 7, ha="left")
        x += 18 + 3.75 * len(words)
    marks.text(axis, WIDTH - 6, 33, f"↑ {TIMES} is the change from the stage's end to its start", 7,
               ha="right")  # fmt: skip
