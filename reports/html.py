"""Lays the `Document` out as one HTML file that needs nothing else: no network, no other file."""

from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reports.document import Document
from reports.inline_svg import inline_svg, slider_data
from reports.parts import EstimateRow, FindingPart, Picture
from reports.scripts import data_block, policy, scripts_of

_TEMPLATES = Path(__file__).parent / "templates" / "html"
_MEDIA_TYPES = {"svg": "image/svg+xml", "png": "image/png"}


def render_html(document: Document) -> bytes:
    """The report as one HTML page in UTF-8; the same document gives the same bytes."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    environment.filters["pixels"] = _pixels
    environment.filters["data_block"] = data_block
    environment.filters["inline_svg"] = inline_svg
    environment.filters["slider_data"] = slider_data
    environment.filters["parted"] = _parted
    environment.filters["side_by_side"] = _side_by_side
    environment.tests["comparable"] = _comparable
    environment.filters["anchor"] = _anchor
    sheets = ("report.css", "slider.css")
    style = "".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in sheets)
    scripts = scripts_of(document)
    page = environment.get_template("page.html.j2").render(
        document=document,
        # Ours, read from the package: the only texts that are not escaped.
        style=Markup(style),
        scripts=[Markup(script) for script in scripts],
        policy=policy(scripts, [style]),
    )
    return page.encode("utf-8", errors="replace")


def _data_uri(picture: Picture) -> str:
    # An image of its own keeps the ids within one figure from clashing with another's.
    return f"data:{_MEDIA_TYPES[picture.suffix]};base64,{b64encode(picture.data).decode()}"


def _pixels(points: float) -> int:
    """CSS pixels: 96 an inch, where a point is a 72nd of one."""
    return round(points * 96 / 72)


def _anchor(label: str) -> str:
    """What a link to the figure or table with `label` names: "figure-3" for "Figure 3"."""
    return label.lower().replace(" ", "-")


def _parted(number: str) -> tuple[str, str]:
    """A number in words as the number itself and the bracket with its interval."""
    value, bracket, interval = number.rpartition(" (")
    return (value, f"({interval}") if bracket else (number, "")


# The name of an estimate, and that of each finding.
_Row = tuple[str, tuple[EstimateRow | None, ...]]


def _comparable(rows: Sequence[_Row]) -> bool:
    """Whether half of the estimates and more are of every network: else columns would be empty."""
    return 2 * sum(None in estimates for _, estimates in rows) <= len(rows)


def _side_by_side(findings: Sequence[FindingPart]) -> list[_Row]:
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
