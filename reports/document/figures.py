"""Draws each figure once, as the picture that every format shows."""

import re
import warnings
from io import BytesIO
from typing import TYPE_CHECKING, Any

from analyses.result import Figure
from reports.elements import FigureElement, Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

# Letters as paths need no font where they are read; the salt makes equal drawings equal files.
_STYLE: Any = {"svg.fonttype": "path", "svg.hashsalt": "gradflow"}
# A drawing of very many marks is smaller as pixels than as paths.
_LARGEST_SVG = 400_000
_PIXELS_PER_INCH = 200
_POINTS_PER_INCH = 72
# A name may be as long as it likes, and a picture grows with what is written beside it. In inches.
_LONGEST_SIDE = 40
# Names stand in comments of the drawing, and may hold what no XML may.
_COMMENT = re.compile(rb"<!--.*?-->\n?", re.DOTALL)
_FORBIDDEN_IN_XML = re.compile("[^\\t\\n\\r -\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
# The formulas that figures and matplotlib's axes write; dollars in a name are dollars.
_ONLY_KNOWN_FORMULAS = re.compile(
    r"(?:[^$]|\$(?:\^2|-g/\|g\||[-\u2212]?2\^\{[^$]*\}|\\mathdefault\{[^$]*\})\$)*", re.DOTALL
)
# What matplotlib warns of where a name is endless, or in letters that its font lacks: the figure
# shows it, and the warning would repeat the letter, whatever a terminal takes it for.
_IGNORED_WARNINGS = ("constrained_layout not applied", "Glyph ")
_SIZE = re.compile(rb'<svg[^>]* width="(?P<width>[\d.]+)pt" height="(?P<height>[\d.]+)pt"')


def draw_figure(figure: Figure, label: str) -> FigureElement:
    """Draw `figure`; whatever the drawing raises becomes a note in its place."""
    picture, note = None, ""
    try:
        picture = _draw(figure)
    except Exception as error:  # one figure that fails must not cost the reader the report
        note = f"This figure could not be drawn: {type(error).__name__}: {error}"
    return FigureElement(
        label=label,
        title=_as_sentence(figure.title),
        caption=figure.caption,
        alt=figure.alt,
        picture=picture,
        note=note,
        # Only a drawing made of lines can change on the page.
        slider=figure.slider if picture and picture.suffix == "svg" else None,
    )


def _as_sentence(title: str) -> str:
    """The title as a sentence of its own: its caption follows on the same line."""
    return title if title.endswith((".", "?", "!")) else f"{title}."


def _draw(figure: Figure) -> Picture:
    from matplotlib import pyplot, rc_context  # noqa: PLC0415 - slow to load, needed only here

    with rc_context(_STYLE), warnings.catch_warnings():
        for message in _IGNORED_WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=UserWarning)
        drawing = figure.draw()
        try:
            _keep_dollars_in_names(drawing)
            return _picture(drawing)
        finally:
            pyplot.close(drawing)


def _keep_dollars_in_names(drawing: "Drawing") -> None:
    """Read no formula in a text that is none of ours: a name may hold dollars."""
    from matplotlib.text import Text  # noqa: PLC0415 - slow to load, needed only here

    for axes in drawing.axes:
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_ticklabels()  # which writes them
    for text in drawing.findobj(Text):
        if isinstance(text, Text) and not _ONLY_KNOWN_FORMULAS.fullmatch(text.get_text()):
            text.set_parse_math(False)


def _picture(drawing: "Drawing") -> Picture:
    svg = _well_formed(_saved(drawing, "svg", {"Date": None, "Creator": None}))
    size = _SIZE.search(svg)
    if size is None:
        raise ValueError("the drawing has no size")
    width, height = float(size["width"]), float(size["height"])
    if max(width, height) > _LONGEST_SIDE * _POINTS_PER_INCH:
        inches = max(width, height) / _POINTS_PER_INCH
        raise ValueError(f"its names would make it {inches:,.0f} inches long")
    if len(svg) <= _LARGEST_SVG:
        return Picture(svg, "svg", width, height)
    png = _saved(drawing, "png", {"Software": None})
    return Picture(png, "png", width, height)


def _well_formed(svg: bytes) -> bytes:
    """`svg` without what a name left in it that is no XML; typst would refuse the whole report."""
    return _FORBIDDEN_IN_XML.sub(
        "\ufffd", _COMMENT.sub(b"", svg).decode("utf-8", "replace")
    ).encode()


def _saved(drawing: "Drawing", suffix: str, metadata: dict[str, None]) -> bytes:
    content = BytesIO()
    drawing.savefig(
        content, format=suffix, metadata=metadata, bbox_inches="tight", dpi=_PIXELS_PER_INCH
    )
    return content.getvalue()
