"""Draws each figure once, as the image file that every format shows."""

from collections.abc import Callable

from analyses.result import Figure
from analyses.showing.drawing import Picture, draw_or_explain
from analyses.wording.translatable import Joined, message
from reports.elements import FigureElement

# From a figure to its picture, or to a sentence that says why there is none.
PictureOf = Callable[[Figure], Picture | str]


def draw_figure(
    figure: Figure, label: str, picture_of: PictureOf = draw_or_explain
) -> FigureElement:
    """The element of `figure`; if it has no picture, a note says why."""
    drawn = picture_of(figure)
    picture, note = (None, drawn) if isinstance(drawn, str) else (drawn, "")
    return FigureElement(
        label=label,
        title=_as_sentence(figure.title),
        caption=figure.caption,
        alt=figure.alt,
        picture=picture,
        note=note,
        narrow=_narrow(figure, picture_of) if picture else None,
        # Only an SVG can change with a slider on the page.
        slider=figure.slider if picture and picture.suffix == "svg" else None,
    )


def _narrow(figure: Figure, picture_of: PictureOf) -> Picture | None:
    """The picture for the width of a phone; None if there is none: the other one serves."""
    narrow = figure.for_phones
    drawn = picture_of(narrow) if narrow else ""
    return None if isinstance(drawn, str) else drawn


def _as_sentence(title: str) -> str:
    """The title with a full stop: the caption follows on the same line."""
    ended = title.endswith((".", "?", "!"))
    return title if ended else Joined((message(title), "."), separator="")
