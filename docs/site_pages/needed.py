"""Tutorials that need libraries which gradflow itself does not: not run where these are missing."""

import re
from importlib.util import find_spec
from pathlib import Path

_NEEDS = re.compile(r"^needs: \[([^\]]*)\]$", re.MULTILINE)
_TITLE = re.compile(r"^# .+\n", re.MULTILINE)


def missing(text: str) -> list[str]:
    """The libraries that a page names under `needs` in its first lines and that are missing."""
    head = text.partition("\n---\n")[0] if text.startswith("---\n") else ""
    named = _NEEDS.search(head)
    names = [name.strip() for name in named[1].split(",")] if named else []
    return [name for name in names if find_spec(name) is None]


def not_run(docs: Path) -> list[str]:
    """The tutorials that cannot be run here, as patterns for myst-nb."""
    pages = sorted((docs / "tutorials").glob("*.md"))
    return [
        page.relative_to(docs).as_posix()
        for page in pages
        if missing(page.read_text(encoding="utf-8"))
    ]


def with_note(text: str) -> str:
    """The page, with a note below its title if it was not run."""
    absent = missing(text)
    if not absent:
        return text
    said = (
        "\n:::{note}\nThis page was built without its outputs: "
        f"{', '.join(absent)} could not be found. `pip install {' '.join(absent)}` before the "
        "build brings them.\n:::\n"
    )
    return _TITLE.sub(lambda title: title[0] + said, text, count=1)
