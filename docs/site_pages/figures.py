"""A figure of each analysis: from the whole reports, or drawn by `docs/analysis_pictures.py`."""

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import unescape
from pathlib import Path

_SECTION = re.compile(r'<section id="([\w-]+)"')
_HEADING = re.compile(r"<h2[^>]*>(.*?)</h2>", re.DOTALL)
_FIGURE = re.compile(r'<figure class="picture" id="([\w-]+)">(.*?)</figure>', re.DOTALL)
_CODED = re.compile(r'<img src="data:image/svg\+xml;base64,([^"]+)" alt="([^"]*)"')
_INLINE = re.compile(r"<svg\b.*?</svg>", re.DOTALL)
_CAPTION = re.compile(r"<figcaption>(.*?)</figcaption>", re.DOTALL)
_META = r"<dc:{0}>(.*?)</dc:{0}>"
# What a section is called now, where a report that was written before calls it otherwise.
_FORMER_TITLES = {"Scaled shortcuts": "Scaled skips"}


@dataclass(frozen=True)
class Shown:
    """A figure: the SVG, its title with the finding, its caption, and where it comes from."""

    svg: str
    title: str
    caption: str
    source: str


def figures(reports: Iterable[Path], drawn: Path, titles: dict[str, str]) -> dict[str, Shown]:
    """The figure of each analysis by its key; `titles` gives the key of a section's title.

    The first report that has one counts, then what lies in `drawn`.
    """
    found: dict[str, Shown] = {}
    for report in reports:
        for key, one in _of_report(report, titles).items():
            found.setdefault(key, one)
    for path in sorted(drawn.glob("*.svg")):
        found.setdefault(path.stem, _drawn(path))
    return found


def _of_report(path: Path, titles: dict[str, str]) -> dict[str, Shown]:
    parts = _SECTION.split(path.read_text(encoding="utf-8"))
    found = {}
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        heading = _HEADING.search(text)
        title = re.sub(r"^\d+\.? ", "", _words(heading[1])) if heading else ""
        key = "overview" if name == "answer" else titles.get(_FORMER_TITLES.get(title, title))
        figure = _FIGURE.search(text)
        if key and figure:
            source = f"[the report on {path.stem}](../../gallery/{path.name}#{figure[1]})"
            found[key] = _shown(figure[2], source)
    return found


def _shown(markup: str, source: str) -> Shown:
    coded, inline = _CODED.search(markup), _INLINE.search(markup)
    caption = _CAPTION.search(markup)
    if caption is None or (coded is None and inline is None):
        raise ValueError(f"a figure of {source} has no picture or no caption")
    svg = base64.b64decode(coded[1]).decode() if coded else _alone(inline[0] if inline else "")
    title, _, text = caption[1].partition("</strong>")
    return Shown(svg, re.sub(r"^Figure \d+\. ", "", _words(title)), _words(text), source)


def _alone(svg: str) -> str:
    """An SVG that stood within a page, as a file."""
    if "xmlns=" not in svg.partition(">")[0]:
        svg = svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    if "xlink:" in svg and "xmlns:xlink" not in svg:
        svg = svg.replace("<svg", '<svg xmlns:xlink="http://www.w3.org/1999/xlink"', 1)
    return svg


def _drawn(path: Path) -> Shown:
    svg = path.read_text(encoding="utf-8")
    title, caption = (
        _words(found[1]) if (found := re.search(_META.format(name), svg, re.DOTALL)) else ""
        for name in ("title", "description")
    )
    return Shown(svg, title, caption, "a small training, by `docs/analysis_pictures.py`")


def _words(markup: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", "", markup)).split())
