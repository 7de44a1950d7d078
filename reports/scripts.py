"""The scripts of the page, the data they read, and the policy that lets no other script run."""

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from markupsafe import Markup, escape

from reports.document import Document

_SCRIPTS = Path(__file__).parent / "templates" / "html" / "scripts"


def scripts_of(document: Document) -> tuple[str, ...]:
    """The scripts that the page of `document` needs, in the order in which they run."""
    return ()


def script(name: str) -> str:
    """The text of our script `name`."""
    return (_SCRIPTS / name).read_text(encoding="utf-8")


def policy(scripts: Sequence[str], *, connect: bool = False) -> str:
    """The Content-Security-Policy of a page with `scripts`: nothing is fetched, nothing else runs.

    With `connect`, its scripts may ask the server that the page came from, and no other.

    Scripts run by the hash of their text (Content Security Policy Level 3, section 2.3.1);
    elements of type application/json are data, which no policy needs to allow.
    """
    hashes = [b64encode(sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{value}'" for value in hashes) or "'none'"
    asked = "connect-src 'self'; " if connect else ""
    return (
        f"default-src 'none'; script-src {allowed}; {asked}style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def data_block(content: str, name: str) -> Markup:
    """JSON for the script that looks up the id `name`; no text in it can end the element."""
    safe = content.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return Markup('<script type="application/json" id="{}">{}</script>').format(
        escape(name), Markup(safe)
    )
