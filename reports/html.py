"""Lays the `Document` out as one HTML file that needs nothing else: no network, no other file."""

from base64 import b64encode
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reports.document import Document
from reports.parts import Picture
from reports.scripts import data_block, policy, script, scripts_of

_TEMPLATES = Path(__file__).parent / "templates" / "html"
_MEDIA_TYPES = {"svg": "image/svg+xml", "png": "image/png"}


def render_html(document: Document, *, live: str | None = None) -> bytes:
    """The report as one HTML page in UTF-8; the same document gives the same bytes.

    `live` is the version of a page that is served and follows its server (see `reports.live`).
    """
    scripts = (*scripts_of(document), *(() if live is None else (script("live.js"),)))
    page = (
        environment()
        .get_template("page.html.j2")
        .render(
            document=document,
            style=style(live=live is not None),
            scripts=[Markup(text) for text in scripts],
            policy=policy(scripts, connect=live is not None),
            live=live,
        )
    )
    return page.encode("utf-8", errors="replace")


def environment() -> Environment:
    """What fills the templates of the page: it escapes every text that is not `Markup`."""
    filled = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filled.filters["data_uri"] = _data_uri
    filled.filters["pixels"] = _pixels
    filled.filters["data_block"] = data_block
    return filled


def style(*, live: bool = False) -> Markup:
    """The style sheet: with the scripts, read from the package, all that is not escaped."""
    names = ("report.css", "live.css") if live else ("report.css",)
    return Markup("".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in names))


def _data_uri(picture: Picture) -> str:
    # An image of its own keeps the ids within one figure from clashing with another's.
    return f"data:{_MEDIA_TYPES[picture.suffix]};base64,{b64encode(picture.data).decode()}"


def _pixels(points: float) -> int:
    """CSS pixels: 96 an inch, where a point is a 72nd of one."""
    return round(points * 96 / 72)
