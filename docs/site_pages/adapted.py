"""Pages that GitHub shows too, as the site shows them: nothing in them is written for Sphinx.

Links to files that are no page of the site become downloads; a section that has a page of its own
moves there; pictures of imports are drawn; CHANGELOG.md and others at the top become pages.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from analyses.registry import built_in
from gradflow.probes.registry import PROBE_NAMES
from site_pages.diagram import drawn
from site_pages.facts import citation, releases
from site_pages.needed import with_note

ROOT = Path(__file__).resolve().parents[2]
# Pages that are files at the top of the repository, or in another folder.
ELSEWHERE = {
    "about/changelog": "CHANGELOG.md",
    "about/contributing": "CONTRIBUTING.md",
    "about/security": "SECURITY.md",
    "explanation/measurements": "benchmarks/RESULTS.md",
}
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
_MERMAID = re.compile(r"```mermaid\n(.*?)```", re.DOTALL)
_FENCE = re.compile(r"^(```+|~~~+).*?^\1\s*$", re.DOTALL | re.MULTILINE)
# Pages whose folder of the same name has a page for each of their sections.
SPLIT = {"reference/analyses": "analyses", "reference/probes": "probes"}


def on_source_read(app: Any, docname: str, source: list[str]) -> None:
    """Adapt the text of a page that Sphinx has read."""
    for module in Path(__file__).parent.glob("*.py"):  # a change of these changes the page
        app.env.note_dependency(str(module))
    path = ROOT / "docs" / f"{docname}.md"
    if docname == "index":
        source[0] = adapt(_first_screen(app), docname, ROOT / "README.md") + source[0]
        return
    if docname in ELSEWHERE:
        path = ROOT / ELSEWHERE[docname]
        source[0] = path.read_text(encoding="utf-8")
        app.env.note_dependency(str(path))
    if path.suffix != ".md" or not path.exists():
        return
    source[0] = adapt(source[0], docname, path)


def _first_screen(app: Any) -> str:
    """The README up to its second heading: the site's first screen is the same."""
    path = ROOT / "README.md"
    app.env.note_dependency(str(path))
    text = path.read_text(encoding="utf-8").partition("\n## ")[0]
    picture = re.search(r"!\[([^\]]*)\]\(docs/(_static/[^)]+)\)\n", text)
    if picture is None:
        raise ValueError("README.md has no picture before its second heading")
    words = " ".join(picture[1].split())
    # Beside its text on a wide screen, which takes it before the text.
    beside = f"```{{image}} {picture[2]}\n:alt: {words}\n:class: finding\n```\n\n"
    before, finding, after = text.replace(picture[0], "").partition("**A finding.**")
    return f"{before}{beside}{finding}{after}\n"


def adapt(text: str, docname: str, path: Path) -> str:
    """The text of the page `docname`, which stands at `path`, as the site shows it."""
    if docname in SPLIT:
        text = _without_sections(text, SPLIT[docname])
    text = _outside_code(text, lambda part: _LINK.sub(lambda m: _link(m, docname, path), part))
    text = _MERMAID.sub(lambda match: drawn(match[1]), text)
    if docname.startswith("tutorials/") and "\n  language:" not in text:
        # Colours the code also where nothing is run, and no kernel says what language it is.
        text = text.replace("\nkernelspec:\n", "\nkernelspec:\n  language: python\n", 1)
    if docname.startswith("tutorials/"):
        text = with_note(text)
    if docname == "about/citing":
        text = text.replace("{{ bibtex }}", citation(ROOT))
    if docname == "about/versions":
        text = text.replace("{{ releases }}", releases(ROOT))
    listed = {"conditions/README": "*", "reference/quantities": "quantities/*"}
    if docname in listed:
        text += f"\n```{{toctree}}\n:hidden:\n:glob:\n\n{listed[docname]}\n```\n"
    return text


def sections(page: Path) -> dict[str, str]:
    """The text of each section of a page, by its heading, ready for a page one folder deeper."""
    parts = re.split(r"^## (.+)\n", page.read_text(encoding="utf-8"), flags=re.MULTILINE)

    def deeper(match: re.Match[str]) -> str:
        target = match[2]
        if target.startswith("#"):
            target = f"{page.name}{target}"
        return match[0] if target.startswith("http") else f"[{match[1]}](../{target})"

    return {
        heading: _LINK.sub(deeper, text).strip()
        for heading, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def _without_sections(text: str, folder: str) -> str:
    """The page without the sections that have pages; its table links to these."""
    keys = _with_pages(folder)
    for key in keys:
        text = re.sub(rf"^## {key}\n.*?(?=^## |\Z)", "", text, flags=re.DOTALL | re.MULTILINE)
        text = text.replace(f"| `{key}` |", f"| [`{key}`]({folder}/{key}.md) |")
    listed = "\n".join(f"{folder}/{key}" for key in keys)
    return f"{text.rstrip()}\n\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n"


def _with_pages(folder: str) -> list[str]:
    return list(PROBE_NAMES) if folder == "probes" else [one.key for one in built_in()]


def _outside_code(text: str, change: Any) -> str:
    """Change all of a text but its blocks of code."""
    done, parts = 0, []
    for fence in _FENCE.finditer(text):
        # Without a language, Sphinx would colour it as Python.
        code = re.sub(r"^(```+|~~~+)(?=\n)", r"\1text", fence[0])
        parts += [change(text[done : fence.start()]), code]
        done = fence.end()
    return "".join([*parts, change(text[done:])])


def _link(match: re.Match[str], docname: str, path: Path) -> str:
    words, target = match[1], match[2]
    if target.startswith(("#", "http:", "https:", "mailto:")):
        return match[0]
    target, _, anchor = target.partition("#")
    file = (path.parent / target).resolve()
    here = posixpath.dirname(docname)
    place = file.relative_to(ROOT).as_posix()
    pages = {value: key for key, value in ELSEWHERE.items()}
    if place in pages:
        return _to(words, pages[place], here, anchor)
    if file.suffix == ".md" and place.startswith("docs/"):
        page = place.removeprefix("docs/").removesuffix(".md")
        if page in SPLIT and anchor in _with_pages(SPLIT[page]):
            page, anchor = f"{page}/{anchor}", ""
        return _to(words, page, here, anchor)
    if place.startswith("docs/gallery/"):
        place = posixpath.relpath(place, f"docs/{here}") + (f"#{anchor}" if anchor else "")
        return f'<a href="{place}">{words}</a>'
    if file.is_file():
        return f"{{download}}`{words.strip('`')} </../{place}>`"
    if file.is_dir():
        return f"`{place}/`"
    raise ValueError(f"{docname} links to {target}, which does not exist")


def _to(words: str, page: str, here: str, anchor: str) -> str:
    path = posixpath.relpath(f"{page}.md", here or ".")
    return f"[{words}]({path}{f'#{anchor}' if anchor else ''})"
