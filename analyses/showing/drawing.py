"""Draws a figure as an image file: SVG, or PNG if it has very many marks."""

import re
import sys
import warnings
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

    from analyses.result import Figure

# Text is drawn as paths, so readers need no font; the salt gives equal drawings equal files.
_STYLE: Any = {"svg.fonttype": "path", "svg.hashsalt": "gradflow"}
# In bytes. A drawing with very many marks is smaller as pixels than as paths.
_LARGEST_SVG = 400_000
_PIXELS_PER_INCH = 200
_POINTS_PER_INCH = 72
# In inches, around what is drawn.
_MARGIN = 0.1
# In inches. A picture grows with the names written beside it, and names may be of any length.
_LONGEST_SIDE = 40
# matplotlib writes names into comments of the SVG, where they may contain text invalid in XML.
_COMMENT = re.compile(rb"<!--.*?-->\n?", re.DOTALL)
_FORBIDDEN_IN_XML = re.compile("[^\\t\\n\\r -\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
# Matches a text whose only formulas are those that figures and matplotlib's axes write.
_ONLY_KNOWN_FORMULAS = re.compile(
    r"(?:[^$]|\$(?:\^2|-g/\|g\||[-\u2212]?2\^\{[^$]*\}|\\mathdefault\{[^$]*\})\$)*", re.DOTALL
)
# Warnings about very long names and about characters that the font lacks. The figure shows both
# anyway, and the warning would print the character, which a terminal might act on.
_IGNORED_WARNINGS = ("constrained_layout not applied", "Glyph ")
_SIZE = re.compile(rb'<svg[^>]* width="(?P<width>[\d.]+)pt" height="(?P<height>[\d.]+)pt"')


@dataclass(frozen=True)
class Picture:
    """An image file: its content, suffix (svg or png), and width and height in points."""

    data: bytes
    suffix: str
    width: float
    height: float


def draw(figure: "Figure") -> Picture:
    """The picture of `figure`; raises what its drawing raises."""
    from matplotlib import rc_context  # noqa: PLC0415 - slow to load, needed only here

    from analyses.showing.text_layouts import layouts_kept  # noqa: PLC0415 - the same

    with rc_context(_STYLE), warnings.catch_warnings():
        for message in _IGNORED_WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=UserWarning)
        drawing = figure.draw()
        try:
            _keep_dollars_in_names(drawing)
            _leave_out_empty_labels(drawing)
            with layouts_kept():
                return _picture(drawing)
        finally:
            if "matplotlib.pyplot" in sys.modules:  # only it keeps drawings open
                sys.modules["matplotlib.pyplot"].close(drawing)


def draw_or_explain(figure: "Figure") -> Picture | str:
    """The picture of `figure`, or a sentence that says why it could not be drawn."""
    try:
        return draw(figure)
    except Exception as error:  # a figure that fails must not stop a whole report
        return f"This figure could not be drawn: {type(error).__name__}: {error}"


def _keep_dollars_in_names(drawing: "Drawing") -> None:
    """Turn off math text for names: a name may contain dollar signs."""
    from matplotlib.text import Text  # noqa: PLC0415 - slow to load, needed only here

    for axes in drawing.axes:
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_ticklabels()  # creates the tick labels
    for text in drawing.findobj(Text):
        shown = text.get_text() if isinstance(text, Text) else ""
        if "$" in shown and not _ONLY_KNOWN_FORMULAS.fullmatch(shown):
            text.set_parse_math(False)


def _leave_out_empty_labels(drawing: "Drawing") -> None:
    """Give empty labels of axes a place: matplotlib would seek one between all numbers."""
    for axes in drawing.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if not axis.label.get_text():
                axis.label.set_visible(False)
                axis.set_label_coords(0.0, 0.0)


def _picture(drawing: "Drawing") -> Picture:
    content = _Svg()
    with suppress(_TooManyMarksError):
        _save(drawing, content, "svg", {"Date": None, "Creator": None})
    svg = _well_formed(content.getvalue())
    size = _SIZE.search(svg)
    if size is None:
        raise ValueError("the drawing has no size")
    width, height = float(size["width"]), float(size["height"])
    if max(width, height) > _LONGEST_SIDE * _POINTS_PER_INCH:
        inches = max(width, height) / _POINTS_PER_INCH
        raise ValueError(f"its names would make it {inches:,.0f} inches long")
    if len(svg) <= _LARGEST_SVG:
        return Picture(svg, "svg", width, height)
    pixels = BytesIO()
    _save(drawing, pixels, "png", {"Software": None})
    return Picture(pixels.getvalue(), "png", width, height)


class _TooManyMarksError(Exception):
    """An SVG has become larger than a picture may be."""


class _Svg(BytesIO):
    """An SVG that is not written to its end once it is too large."""

    def __init__(self) -> None:
        super().__init__()
        self._size = 0  # without matplotlib's comments, which are left out later

    def write(self, content: Any) -> int:
        if not content.startswith(b"<!--"):
            self._size += len(content)
        written = super().write(content)
        if self._size > _LARGEST_SVG:
            raise _TooManyMarksError
        return written


def _well_formed(svg: bytes) -> bytes:
    """`svg` without comments and invalid characters; typst would refuse the whole report."""
    return _FORBIDDEN_IN_XML.sub(
        "\ufffd", _COMMENT.sub(b"", svg).decode("utf-8", "replace")
    ).encode()


def _save(drawing: "Drawing", content: BytesIO, suffix: str, metadata: dict[str, None]) -> None:
    """Write the file of `drawing`, cut to what is drawn.

    `savefig` with `bbox_inches="tight"` draws twice, first to learn the places of texts. The layout
    alone says as much.
    """
    dpi = _POINTS_PER_INCH if suffix == "svg" else _PIXELS_PER_INCH
    _CANVASES[suffix]()(drawing)
    layout, drawing.dpi = drawing.get_layout_engine(), dpi
    if layout is not None:
        with suppress(ValueError):  # as in a drawing by matplotlib
            layout.execute(drawing)
        drawing.set_layout_engine(None)
    try:
        drawing.savefig(
            content,
            format=suffix,
            metadata=metadata,
            bbox_inches=drawing.get_tightbbox().padded(_MARGIN),
            dpi=_PIXELS_PER_INCH,
        )
    finally:
        drawing.set_layout_engine(layout)


def _svg_canvas() -> Any:
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415 - slow to load

    return FigureCanvasSVG


def _pixel_canvas() -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - slow to load

    return FigureCanvasAgg


_CANVASES = {"svg": _svg_canvas, "png": _pixel_canvas}
