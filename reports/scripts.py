"""The scripts of the page, the data they read, and the policy that lets no other script run."""

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from markupsafe import Markup, escape

from reports.document import Document

_FOLDER = Path(__file__).parent / "templates" / "html" / "scripts"


def scripts_of(document: Document) -> tuple[str, ...]:
    """The scripts that the page of `document` needs, in the order in which they run."""
    figures = [document.opening, *(f for part in document.sections for f in part.all_figures)]
    names = ["page.js"]
    if any(figure and figure.slider for figure in figures):
        names.append("slider.js")
    return tuple((_FOLDER / name).read_text(encoding="utf-8") for name in names)


def policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """The Content-Security-Policy of a page with these texts of script and style elements.

    Nothing is fetched, and no other script or style applies: both are allowed by the hash of their
    text (Content Security Policy Level 3, section 2.3.1). That shuts out attributes with styles or
    event handlers too; a script of ours may still set `element.style`. Elements of type
    application/json are data, which no policy needs to allow.
    """
    return (
        f"default-src 'none'; script-src {_hashes(scripts)}; style-src {_hashes(styles)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def data_block(content: str, name: str) -> Markup:
    """JSON for the script that looks up the id `name`; no text in it can end the element."""
    safe = content.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return Markup('<script type="application/json" id="{}">{}</script>').format(
        escape(name), Markup(safe)
    )


def _hashes(texts: Sequence[str]) -> str:
    digests = [b64encode(sha256(text.encode()).digest()).decode() for text in texts]
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
