"""What the site has beside the pages written by hand: pages from registries, and adapted texts."""

from pathlib import Path
from typing import Any

from site_pages import adapted, generated
from site_pages.facts import facts
from site_pages.needed import not_run

__all__ = ["connect", "facts", "not_run", "quantities"]

DOCS = Path(__file__).resolve().parents[1]


def quantities() -> list[str]:
    """The names of all quantities, in order."""
    return sorted(generated.quantities())


def connect(app: Any) -> None:
    """Write the generated pages, and adapt the others as they are read."""
    generated.write(DOCS / "reference")
    app.connect("source-read", adapted.on_source_read)
    app.connect("autodoc-process-docstring", examples_as_code, priority=400)
    app.connect("html-page-context", _on_page)
    app.connect("build-finished", _copy_reports)


def _on_page(app: Any, page: str, template: str, context: dict[str, Any], tree: object) -> None:
    """A signature over several lines is no list of definitions to a screen reader."""
    if "body" in context:
        context["body"] = context["body"].replace("<dl>\n<dd><em", '<dl role="none">\n<dd><em')


def examples_as_code(_: Any, __: str, ___: str, ____: Any, _____: Any, lines: list[str]) -> None:
    """Mark the indented paragraphs of a docstring, which are its examples, as code."""
    for place in range(len(lines) - 1, 1, -1):
        before, blank, line = lines[place - 2 : place + 1]
        if line.startswith("    ") and not blank and before[:1].strip():
            lines[place:place] = ["::", ""]


def _copy_reports(app: Any, error: Exception | None) -> None:
    """Copy the whole reports beside their page, which links to them."""
    if error is None and app.builder.format == "html":
        folder = Path(app.outdir) / "gallery"
        folder.mkdir(exist_ok=True)
        for path in (DOCS / "gallery").iterdir():
            if path.suffix in {".html", ".pdf", ".txt"}:
                (folder / path.name).write_bytes(path.read_bytes())
