"""Draws each figure once, as the image file that every format shows."""

from analyses.result import Figure
from analyses.showing.drawing import draw
from reports.elements import FigureElement


def draw_figure(figure: Figure, label: str) -> FigureElement:
    """Draw `figure`; if drawing raises an exception, a note takes the place of the picture."""
    picture, note = None, ""
    try:
        picture = draw(figure)
    except Exception as error:  # a figure that fails must not stop the whole report
        note = f"This figure could not be drawn: {type(error).__name__}: {error}"
    return FigureElement(
        label=label,
        title=_as_sentence(figure.title),
        caption=figure.caption,
        alt=figure.alt,
        picture=picture,
        note=note,
        # Only an SVG can change with a slider on the page.
        slider=figure.slider if picture and picture.suffix == "svg" else None,
    )


def _as_sentence(title: str) -> str:
    """The title with a full stop: the caption follows on the same line."""
    return title if title.endswith((".", "?", "!")) else f"{title}."
