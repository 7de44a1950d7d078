"""Lays the `Document` out as one HTML file that needs nothing else: no network, no other file."""

from base64 import b64encode
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reports.document import Document
from reports.parts import Picture
from reports.scripts import data_block, policy, scripts_of

_TEMPLATES = Path(__file__).parent / "templates" / "html"
_MEDIA_TYPES = {"svg": "image/svg+xml", "png": "image/png"}


def render_html(document: Document) -> bytes:
    """The report as one HTML page in UTF-8; the same document gives the same bytes."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    environment.filters["pixels"] = _pixels
    environment.filters["data_block"] = data_block
    sheets = ["report.css", *(["explorer.css"] if document.explorer else [])]
    style = "\n".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in sheets)
    scripts = scripts_of(document)
    page = environment.get_template("page.html.j2").render(
        document=document,
        # Ours, read from the package: the only texts that are not escaped.
        style=Markup(style),
        scripts=[Markup(script) for script in scripts],
        policy=policy(scripts),
    )
    return page.encode("utf-8", errors="replace")


def _data_uri(picture: Picture) -> str:
    # An image of its own keeps the ids within one figure from clashing with another's.
    return f"data:{_MEDIA_TYPES[picture.suffix]};base64,{b64encode(picture.data).decode()}"


def _pixels(points: float) -> int:
    """CSS pixels: 96 an inch, where a point is a 72nd of one."""
    return round(points * 96 / 72)
