"""Lays the `Document` out as one HTML file that needs nothing else: no network, no other file."""

from base64 import b64encode
from collections import Counter
from collections.abc import Sequence

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reports.elements import Document, EstimateRow, FindingElement, Picture
from reports.html.inline_svg import inline_svg, slider_data
from reports.html.scripts import (
    TEMPLATES,
    content_security_policy,
    data_block,
    read_script,
    scripts_of,
    sheets_of,
)

_MEDIA_TYPES = {"svg": "image/svg+xml", "png": "image/png"}


def render_html(document: Document, *, live: str | None = None) -> bytes:
    """The report as one HTML page in UTF-8; the same document gives the same bytes.

    `live` is the version of a page that is served and follows its server (see `reports.html.live`).
    """
    follows = live is not None
    scripts = (*scripts_of(document), *((read_script("live.js"),) if follows else ()))
    sheets = (*sheets_of(document), *(("live.css",) if follows else ()))
    page = (
        template_environment()
        .get_template("page.html.j2")
        .render(
            document=document,
            style=style(*sheets),
            scripts=[Markup(text) for text in scripts],
            policy=content_security_policy(scripts, [style(*sheets)], connect=follows),
            live=live,
        )
    )
    return page.encode("utf-8", errors="replace")


def template_environment() -> Environment:
    """What fills the templates of the page: it escapes every text that is not `Markup`."""
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
    }
    filled.tests["mostly_shared"] = _mostly_shared
    return filled


def style(*sheets: str) -> Markup:
    """The style sheets in one: with the scripts, read from the package, all that is not escaped."""
    return Markup("\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in sheets))


def _data_uri(picture: Picture) -> str:
    # An image of its own keeps the ids within one figure from clashing with another's.
    return f"data:{_MEDIA_TYPES[picture.suffix]};base64,{b64encode(picture.data).decode()}"


def _pixels(points: float) -> int:
    """CSS pixels: 96 an inch, where a point is a 72nd of one."""
    return round(points * 96 / 72)


def _anchor(label: str) -> str:
    """What a link to the figure or table with `label` names: "figure-3" for "Figure 3"."""
    return label.lower().replace(" ", "-")


def _split_number(number: str) -> tuple[str, str]:
    """A number in words as the number itself and the bracket with its interval."""
    value, bracket, interval = number.rpartition(" (")
    return (value, f"({interval}") if bracket else (number, "")


# The name of an estimate, and that of each finding.
_EstimatesByFinding = tuple[str, tuple[EstimateRow | None, ...]]


def _mostly_shared(rows: Sequence[_EstimatesByFinding]) -> bool:
    """Whether half of the estimates and more are of every network: else columns would be empty."""
    return 2 * sum(None in estimates for _, estimates in rows) <= len(rows)


def _side_by_side(findings: Sequence[FindingElement]) -> list[_EstimatesByFinding]:
    """For each name of an estimate, that of each finding; None where a finding has none such."""
    columns = [_by_name(finding.estimates) for finding in findings]
    keys = dict.fromkeys(key for column in columns for key in column)
    return [(name, tuple(column.get((name, nth)) for column in columns)) for name, nth in keys]


def _by_name(rows: Sequence[EstimateRow]) -> dict[tuple[str, int], EstimateRow]:
    """The estimates by name, and by which of that name it is: none may hide another."""
    seen: Counter[str] = Counter()
    named = {}
    for row in rows:
        named[row.name, seen[row.name]] = row
        seen[row.name] += 1
    return named
