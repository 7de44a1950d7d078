"""Pieces of HTML for notebooks: a card, its facts, its texts and its pictures.

A card holds its own styles and loads nothing. It is light or dark as the notebook is: JupyterLab,
VS Code and Colab say so on an element around it; elsewhere the reader's system decides.
"""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape as _escape
from urllib.parse import quote

from gradflow.errors import printable

_NO_BREAK = "\N{NO-BREAK SPACE}"  # stands between a number and its unit
_LIGHT = (
    "--ground:#fff;--ink:#1b1e23;--muted:#5a5e66;--rule:#dcdfe4;--link:#00588f;"
    "--good:#00588f;--bad:#a63c00;--open:#5a5e66;color-scheme:light"
)
_DARK = (
    "--ground:#15171b;--ink:#e4e6ea;--muted:#a6abb3;--rule:#353941;--link:#85c4f2;"
    "--good:#85c4f2;--bad:#ffa674;--open:#b6bac1;color-scheme:dark"
)
_STYLE = (
    f".gradflow-card{{{_LIGHT}}}"
    f"@media (prefers-color-scheme:dark){{.gradflow-card{{{_DARK}}}}}"
    f'[data-jp-theme-light="true"] .gradflow-card,.vscode-light .gradflow-card{{{_LIGHT}}}'
    f'[data-jp-theme-light="false"] .gradflow-card,.vscode-dark .gradflow-card,'
    f"html[theme=dark] .gradflow-card{{{_DARK}}}"
    ".gradflow-card{background:var(--ground);color:var(--ink);border:1px solid var(--rule);"
    "border-radius:6px;padding:.8em 1em;max-width:46em;font:14px/1.5 system-ui,sans-serif;"
    "overflow-wrap:anywhere}"
    ".gradflow-card p,.gradflow-card ul,.gradflow-card table{margin:.4em 0}"
    ".gradflow-card .head{font-weight:650;margin-top:0}"
    ".gradflow-card .quiet{color:var(--muted);font-size:.9em}"
    ".gradflow-card ul{padding:0;list-style:none}.gradflow-card li{margin:.25em 0}"
    ".gradflow-card b.good{color:var(--good)}"
    ".gradflow-card b.bad{color:var(--bad)}"
    ".gradflow-card b.open{color:var(--open)}"
    ".gradflow-card a{color:var(--link)}"
    ".gradflow-card table{border-collapse:collapse;background:none;color:inherit;font-size:.92em}"
    ".gradflow-card th,.gradflow-card td{text-align:left;padding:.15em .9em .15em 0;color:inherit;"
    "background:none;border:0;border-bottom:1px solid var(--rule)}"
    ".gradflow-card svg{display:block;max-width:100%;height:auto;margin:.5em 0}"
    ".gradflow-card svg text{fill:var(--ink);font:11px system-ui,sans-serif}"
    ".gradflow-card svg .line{stroke:var(--muted)}"
    # Figures are drawn on white: in the dark they get a white frame, as in the report.
    ".gradflow-card img{display:block;max-width:100%;height:auto;background:#fff;"
    "border-radius:4px;padding:6px;box-sizing:border-box;margin:.5em 0}"
)


def escape(text: object) -> str:
    """`text` as HTML shows it literally, in one line; control characters become escapes."""
    return _escape(_NO_BREAK.join(map(printable, str(text).split(_NO_BREAK))))


def address(path: str) -> str:
    """A relative `path` with slashes as the address of a link."""
    return _escape(quote(path, errors="replace"))


def card(heading: str, *parts: str) -> str:
    """A card with the text `heading` above `parts`, which are HTML; empty parts are left out."""
    head = f'<p class="head">{escape(heading)}</p>'
    inner = "".join(part for part in (head, *parts) if part)
    return f'<div class="gradflow-card"><style>{_STYLE}</style>{inner}</div>'


def text(words: str, *, quiet: bool = False) -> str:
    """A paragraph of plain `words`; nothing if there are none."""
    kind = ' class="quiet"' if quiet else ""
    return f"<p{kind}>{escape(words)}</p>" if words else ""


def facts(items: Mapping[str, object]) -> str:
    """Names and values in one quiet line; missing values are left out."""
    said = [f"{name} {value}".strip() for name, value in items.items() if value not in (None, "")]
    return text(" · ".join(said), quiet=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of texts; a cell that is a `Raw` stays as it is."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(one)}</td>' for one in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


class Raw(str):
    """A text that is HTML already."""

    __slots__ = ()


def listed(items: Sequence[str], shown: int) -> str:
    """A list of `items`, which are HTML; those after the first `shown` open on a click."""
    first = "".join(f"<li>{one}</li>" for one in items[:shown])
    rest = "".join(f"<li>{one}</li>" for one in items[shown:])
    more = f"{len(items) - shown} more"
    folded = f"<details><summary>{more}</summary><ul>{rest}</ul></details>" if rest else ""
    return f"<ul>{first}</ul>{folded}" if first else ""


def folded(summary: str, *parts: str) -> str:
    """`parts`, which are HTML, below a line that opens them; nothing if they are empty."""
    inner = "".join(parts)
    return f"<details><summary>{escape(summary)}</summary>{inner}</details>" if inner else ""


def image(data: bytes, suffix: str, alt: str, width: float) -> str:
    """A picture (svg or png) inside the page, `width` points wide at most."""
    kind = "image/svg+xml" if suffix == "svg" else f"image/{suffix}"
    content = b64encode(data).decode("ascii")
    pixels = round(width * 96 / 72)
    return f'<img src="data:{kind};base64,{content}" alt="{escape(alt)}" width="{pixels}">'


def _cell(value: object) -> str:
    return value if isinstance(value, Raw) else escape(value)
