"""Pages printed from the code: an analysis, a probe, a quantity, a public name each has one.

They are written anew with every build and are no part of the repository.
"""

import shutil
from pathlib import Path
from types import ModuleType

import gradflow
from analyses.registry import built_in
from gradflow.probes.registry import PROBE_NAMES, find_probes
from gradflow.runs.format.probe_tables import PROBE_TABLES
from gradflow.runs.format.quantity import Quantity, Table
from gradflow.runs.format.schema import TABLES
from site_pages.adapted import sections
from site_pages.figures import Shown, figures

Pages = dict[str, str]


def write(reference: Path) -> None:
    """Write all pages into folders of `reference`; what is unchanged stays untouched."""
    docs = reference.parent
    shown = figures(
        [docs / "gallery" / f"{name}.html" for name in ("digits", "makanan-96")],
        docs / "_static" / "analyses",
        {one.title: one.key for one in built_in()},
    )
    kinds = {
        "analyses": analyses(sections(reference / "analyses.md"), shown),
        "probes": probes(sections(reference / "probes.md")),
        "quantities": quantities(),
        "api": public_names(),
    }
    for kind, pages in kinds.items():
        folder = reference / kind
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            if path.stem not in pages:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name, text in pages.items():
            _write(folder / f"{name}.md", text)
    for key, one in shown.items():
        _write(reference / "analyses" / f"{key}.svg", one.svg)


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def analyses(texts: dict[str, str], shown: dict[str, Shown]) -> Pages:
    """A page for each analysis of the registry, with its figure.

    `texts` are the sections of the page of all.
    """
    pages = {}
    for one in built_in():
        asked = (
            "python -m gradflow.report A B          # asked if several are compared"
            if one.comparing
            else f"python -m gradflow.report A --only {one.key}"
        )
        pages[one.key] = _page(
            f"# `{one.key}`: {one.title}",
            f"*{one.question}*",
            one.background,
            texts[one.key],
            _figure(one.key, shown[one.key]) if one.key in shown else "",
            f"```sh\n{asked}\n```",
            f'From Python: `gradflow.analyze("runs/mine", only=["{one.key}"])`.'
            if not one.comparing
            else 'From Python: `gradflow.analyze(["A", "B"])`.',
        )
    return pages


def _figure(key: str, one: Shown) -> str:
    title, caption = (text.replace("`", "") for text in (one.title, one.caption))
    alt = title.replace("[", "(").replace("]", ")")
    return (
        f":::{{figure}} {key}.svg\n:alt: {alt}\n:class: dark-light finding-of\n\n"
        f"**{_cell(title)}** {_cell(caption)} From {one.source}.\n:::"
    )


def probes(texts: dict[str, str]) -> Pages:
    """A page for each probe of the registry."""
    pages = {}
    for name in PROBE_NAMES:
        (probe,) = find_probes((name,))
        known = [table for table in PROBE_TABLES if table.name in probe.tables]
        filled = [
            _page(f"### {table.name}", f"A row is {table.row_meaning}.", _columns(table))
            for table in known
        ]
        pages[name] = _page(
            f"# `{name}`",
            f"Runs {probe.when}.",
            texts[name],
            f"```sh\npython -m gradflow.train_and_trace --probes {name}\n"
            f"python -m gradflow.probe FOLDER --probes {name}   # on a finished experiment\n```",
            "## What it records",
            *filled,
        )
    return pages


def quantities() -> Pages:
    """A page for each quantity of the schema, with every table that has it."""
    found: dict[str, list[tuple[Table, Quantity]]] = {}
    for table in TABLES.values():
        for quantity in table.quantities:
            found.setdefault(quantity.name, []).append((table, quantity))
    return {name: _quantity(name, places) for name, places in found.items()}


def _quantity(name: str, places: list[tuple[Table, Quantity]]) -> str:
    parts = []
    for table, one in places:
        facts = {
            "formula": _cell(one.formula),
            "unit": _cell(one.unit),
            "source": _cell(one.source),
            "type": f"`{one.dtype}`",
            "allowed": "{} to {}".format(*one.allowed_range) if one.allowed_range else "",
            "earlier name": f"`{one.former_name}`" if one.former_name else "",
            "missing": " ".join(_missing(one)),
        }
        rows = [f"| {key} | {value} |" for key, value in facts.items() if value]
        keys = ", ".join(f"`{key.name}`" for key in table.keys)
        parts += [
            f"## In the table [`{table.name}`](../quantities.md#{table.name})",
            f"A row is {table.row_meaning}" + (f", known by {keys}." if keys else "."),
            "\n".join(["| | |", "|---|---|", *rows]),
            f'```python\n{_reading(table)}["{name}"]\n```',
        ]
    return _page(f"# `{name}`", *parts)


def _reading(table: Table) -> str:
    run = 'gradflow.open_run("runs/mine")'
    return (
        f"{run}.{table.name}"
        if hasattr(gradflow.Run, table.name)
        else (f'{run}.table("{table.name}")')
    )


def _missing(one: Quantity) -> list[str]:
    said = {
        "for a tensor without channels": one.by_channel,
        "for a tensor whose elements are all equal": one.needs_variance,
    }
    return [words for words, applies in said.items() if applies]


def _columns(table: Table) -> str:
    names = {quantity.name for quantity in table.quantities}
    rows = []
    for one in table.columns:
        name = f"`{one.name}`"
        linked = f"[{name}](../quantities/{one.name}.md)" if one.name in names else name
        rows.append(f"| {linked} | {_cell(one.unit)} | {_cell(one.formula)} |")
    return "\n".join(["| column | unit | formula |", "|---|---|---|", *rows])


def public_names() -> Pages:
    """A page for each name in `gradflow.__all__`, from its docstring."""
    return {name: _public(name) for name in gradflow.__all__ if name != "__version__"}


def _public(name: str) -> str:
    thing = getattr(gradflow, name)
    where = f"gradflow.{name}"
    if name == "report":
        directive = [
            "`gradflow.report` is the module of the command and can be called.\n",
            _eval_rst(".. autofunction:: gradflow.findings.reporting.report"),
        ]
    elif isinstance(thing, ModuleType):
        offered = {one: getattr(thing, one) for one in thing.__all__}
        # A list of names has no docstring of its own.
        members = [
            _directive(value, f"{where}.{one}") for one, value in offered.items() if callable(value)
        ]
        directive = [_eval_rst(f".. automodule:: {where}\n   :no-index:"), *members]
    else:
        directive = [_directive(thing, where)]
    return _page(f"# `{where}`", *directive)


def _directive(thing: object, where: str) -> str:
    if isinstance(thing, type):
        return _eval_rst(f".. autoclass:: {where}\n   :members:")
    return _eval_rst(f".. autofunction:: {where}")


def _eval_rst(text: str) -> str:
    return f"```{{eval-rst}}\n{text}\n```"


def _cell(text: str) -> str:
    """A text of the code as it stands, within a cell of a table."""
    for mark in "\\|*_[]<>`":
        text = text.replace(mark, f"\\{mark}")
    return text


def _page(*parts: str) -> str:
    return "\n\n".join(part.strip() for part in parts if part) + "\n"
