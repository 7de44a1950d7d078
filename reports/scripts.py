"""The scripts of the page, the data they read, and the policy that lets no other script run."""

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from markupsafe import Markup, escape

from reports.document import Document
from reports.vega import vega_script

_FOLDER = Path(__file__).parent / "templates" / "html" / "scripts"
# In this order: each uses what stands in the ones before it.
_EXPLORER = (
    "explorer_values.js",
    "explorer_charts.js",
    "explorer_state.js",
    "explorer_drawing.js",
    "explorer.js",
)


def scripts_of(document: Document) -> tuple[str, ...]:
    """The scripts that the page of `document` needs, in the order in which they run."""
    return (vega_script(), _in_one(_EXPLORER)) if document.explorer else ()


def _in_one(names: Sequence[str]) -> str:
    """The files as one script whose names no other script of the page sees."""
    parts = [(_FOLDER / name).read_text(encoding="utf-8") for name in names]
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "})();"


def policy(scripts: Sequence[str]) -> str:
    """The Content-Security-Policy of a page with `scripts`: nothing is fetched, nothing else runs.

    Scripts run by the hash of their text (Content Security Policy Level 3, section 2.3.1);
    elements of type application/json are data, which no policy needs to allow.
    """
    hashes = [b64encode(sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{value}'" for value in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def data_block(content: str, name: str) -> Markup:
    """JSON for the script that looks up the id `name`; no text in it can end the element."""
    safe = content.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return Markup('<script type="application/json" id="{}">{}</script>').format(
        escape(name), Markup(safe)
    )
