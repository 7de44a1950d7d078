"""Renders the `Document` as one HTML file that needs no network and no other file."""

from base64 import b64encode
from collections import Counter
from collections.abc import Sequence

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analyses.showing.drawing import Picture
from reports.elements import Document, EstimateRow, FindingElement
from reports.html.inline_svg import inline_svg, slider_data
from reports.html.scripts import (
    TEMPLATES,
    content_security_policy,
    data_block,
    read_script,
    scripts_of,
    sheets_of,
)
from reports.html.vega import vega_parts
from reports.languages.catalogue import ENGLISH, Catalogue, catalogue_of

_MEDIA_TYPES = {"svg": "image/svg+xml", "png": "image/png"}


def render_html(document: Document, *, live: str | None = None) -> bytes:
    """The report as one HTML page in UTF-8; the same document gives the same bytes.

    `live` is the version of a live page (see `reports.html.live`); None for a file.
    """
    follows = live is not None
    scripts = (*scripts_of(document), *((read_script("live.js"),) if follows else ()))
    sheets = (*sheets_of(document), *(("live.css",) if follows else ()))
    page = (
        template_environment(catalogue_of(document.language))
        .get_template("page.html.j2")
        .render(
            document=document,
            charts=vega_parts().charts if document.explorer else "",
            style=style(*sheets),
            scripts=[Markup(text) for text in scripts],
            policy=content_security_policy(scripts, [style(*sheets)], connect=follows),
            live=live,
        )
    )
    return page.encode("utf-8", errors="replace")


def template_environment(words: Catalogue | None = None) -> Environment:
    """The Jinja environment of the page's templates; it escapes every text but `Markup`.

    `words` are those of the page's language, by default English.
    """
    filled = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filled.filters |= {
        "data_uri": _data_uri,
        "pixels": _pixels,
        "data_block": data_block,
        "inline_svg": inline_svg,
        "slider_data": slider_data,
        "split_number": _split_number,
        "side_by_side": _side_by_side,
        "anchor": _anchor,
        "address": _address,
    }
    filled.globals["_"] = words or catalogue_of(ENGLISH)
    filled.tests["mostly_shared"] = _mostly_shared
    return filled


def style(*sheets: str) -> Markup:
    """The style sheets as one text. Only style sheets and scripts of the package are unescaped."""
    return Markup("\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in sheets))


def _data_uri(picture: Picture) -> str:
    # In an img element, the ids of one figure cannot clash with those of another.
    return f"data:{_MEDIA_TYPES[picture.suffix]};base64,{b64encode(picture.data).decode()}"


def _pixels(points: float) -> int:
    """Points (72 per inch) as CSS pixels (96 per inch)."""
    return round(points * 96 / 72)


def _anchor(label: str) -> str:
    """The link target of the figure or table with `label`: "figure-3" for "Figure 3"."""
    return label.lower().replace(" ", "-")


def _address(anchor: str) -> str:
    """The address of a link to a place in this page, or in the longer page beside it."""
    return anchor if "#" in anchor else f"#{anchor}"


def _split_number(number: str) -> tuple[str, str]:
    """Split an estimate's text into the number and the interval in brackets."""
    value, bracket, interval = number.rpartition(" (")
    return (value, f"({interval}") if bracket else (number, "")


# The name of an estimate, and the estimate of that name in each finding.
_EstimatesByFinding = tuple[str, tuple[EstimateRow | None, ...]]


def _mostly_shared(rows: Sequence[_EstimatesByFinding]) -> bool:
    """Whether at least half of the estimates exist for all networks, so that columns fill up."""
    return 2 * sum(None in estimates for _, estimates in rows) <= len(rows)


def _side_by_side(findings: Sequence[FindingElement]) -> list[_EstimatesByFinding]:
    """For each name of an estimate, the estimate in each finding; None if a finding lacks it."""
    columns = [_by_name(finding.estimates) for finding in findings]
    keys = dict.fromkeys(key for column in columns for key in column)
    return [(name, tuple(column.get((name, nth)) for column in columns)) for name, nth in keys]


def _by_name(rows: Sequence[EstimateRow]) -> dict[tuple[str, int], EstimateRow]:
    """The estimates by name and position among those of the same name, so that none is lost."""
    seen: Counter[str] = Counter()
    named = {}
    for row in rows:
        named[row.name, seen[row.name]] = row
        seen[row.name] += 1
    return named
