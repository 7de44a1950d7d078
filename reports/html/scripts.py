"""The page's scripts, the data they read, and the policy that forbids all other scripts."""

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from markupsafe import Markup, escape

from reports.elements import Document
from reports.html.vega import vega_parts

TEMPLATES = Path(__file__).parent / "templates"
# In this order: each script uses names of the scripts before it.
_EXPLORER_SCRIPTS = (
    "explorer_values.js",
    "explorer_charts.js",
    "explorer_state.js",
    "explorer_drawing.js",
    "explorer.js",
)


def read_script(name: str) -> str:
    """The text of the script `name` of this package."""
    return (TEMPLATES / "scripts" / name).read_text(encoding="utf-8")


def scripts_of(document: Document) -> tuple[str, ...]:
    """The scripts that the page of `document` needs, in the order in which they run."""
    return (
        read_script("page.js"),
        *((read_script("slider.js"),) if _has_slider(document) else ()),
        *((read_script("tour.js"),) if document.tour else ()),
        *((vega_parts().script, _in_one_scope(_EXPLORER_SCRIPTS)) if document.explorer else ()),
    )


def sheets_of(document: Document) -> tuple[str, ...]:
    """The style sheets that the page of `document` needs, by name."""
    return (
        "report.css",
        *(("slider.css",) if _has_slider(document) else ()),
        *(("tour.css",) if document.tour else ()),
        *(("explorer.css",) if document.explorer else ()),
    )


def _has_slider(document: Document) -> bool:
    figures = (figure for part in document.sections for figure in part.all_figures)
    return any(figure.slider for figure in figures)


def _in_one_scope(names: Sequence[str]) -> str:
    """The scripts as one, in a scope of its own: other scripts of the page cannot see its names."""
    return '(() => {\n"use strict";\n' + "\n".join(read_script(name) for name in names) + "})();"


def content_security_policy(
    scripts: Sequence[str], styles: Sequence[str], *, connect: bool = False
) -> str:
    """The Content-Security-Policy of a page with these scripts and style sheets.

    The page fetches nothing; with `connect`, its scripts may ask the page's own server. Scripts and
    style sheets are allowed by the hash of their text (Content Security Policy Level 3, section
    2.3.1), so no others apply. This also blocks style attributes and event handlers; a script of
    ours may still set `element.style`. Elements of type application/json are data and need no
    permission.
    """
    asked = "connect-src 'self'; " if connect else ""
    return (
        f"default-src 'none'; script-src {_csp_hashes(scripts)}; "
        f"style-src {_csp_hashes(styles)}; {asked}"
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def data_block(content: str, name: str) -> Markup:
    """A JSON data element with the id `name`; no text in it can close the element."""
    safe = content.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return Markup('<script type="application/json" id="{}">{}</script>').format(
        escape(name), Markup(safe)
    )


def _csp_hashes(texts: Sequence[str]) -> str:
    digests = [b64encode(sha256(text.encode()).digest()).decode() for text in texts]
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
