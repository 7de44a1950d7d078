"""Prints the `Document` in a terminal: the answer, or whole sections, as text."""

import re
import sys
from collections.abc import Iterable, Iterator

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from analyses.result import Mark, Verdict
from reports.elements import (
    AnswerSentence,
    Card,
    Claim,
    Document,
    FigureElement,
    FindingElement,
    Section,
    TableElement,
    VerdictLine,
)
from reports.languages.catalogue import Catalogue, catalogue_of

COLUMNS = 80
_WIDEST_COLUMN = 26  # of a table; longer texts wrap inside their cell
_STYLES = {
    Mark.GOOD: "bold cyan",
    Mark.BAD: "bold yellow",
    Mark.NEITHER: "bold",
    Mark.OPEN: "bold",
}
# Control characters in a name could move the cursor, change colors, or reverse the text.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def answer_text(document: Document, console: Console | None = None) -> str:
    """The question, the warnings, the answer, and the verdicts by statement.

    `console` sets the width and the colors. None stands for standard output: at most 80 columns,
    and no colors if the output goes to a file or another command.
    """
    return _rendered(console or _console(), _answer(document, catalogue_of(document.language)))


def sections_text(document: Document, console: Console | None = None) -> str:
    """All sections of `document` as text; figures appear by their titles."""
    return _rendered(console or _console(), _sections(document, catalogue_of(document.language)))


def _console() -> Console:
    console = Console(highlight=False)
    console.width = min(console.width, COLUMNS)
    return console


def _rendered(console: Console, parts: Iterable[RenderableType]) -> str:
    # The caller prints the text: rich would raise an error if the output is closed early.
    with console.capture() as captured:
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, Text) and bool(part.no_wrap))
    text = captured.get()
    return text if console.is_terminal else "\n".join(map(str.rstrip, text.split("\n")))


def _answer(document: Document, words: Catalogue) -> Iterator[RenderableType]:
    yield _text(document.question, "bold")
    for warning in document.warnings:
        yield _text(f"{words('Warning:')} {warning}", "yellow")
    for sentence in document.answer:
        yield from (Text(), _text(sentence.text))
        said = _without_controls(f"{words('Claim:')} {sentence.hypothesis} {words('Found:')} ")
        claim = Text.assemble(said, _verdict(sentence, words), ".")
        claim.stylize("dim", 0, len(said))
        yield _indented(claim)
    if document.to_do:
        yield from (Text(), _text(f"{words('What to do:')} {' '.join(document.to_do)}"))
    for text in (document.certainty, document.open_question):
        if text:
            yield from (Text(), _text(text))
    yield from (Text(), _text(document.verdict_counts), Text())
    for card in document.verdicts:
        yield from _card(card, words)
    yield from _destinations(document, words)
    yield Text()


def _destinations(document: Document, words: Catalogue) -> Iterator[RenderableType]:
    """Where else the numbers are. Addresses and commands are copied, so they are not wrapped."""
    if document.destinations:
        yield from (Text(), _text(words("Also written to")))
    for one in document.destinations:
        yield _indented(_text(f"{one.kind}, {one.note}" if one.note else one.kind))
        # A command that shows all runs says where they are.
        for place in one.places if not one.commands else ():
            yield _unwrapped(f"    {place.run}: {place.text}" if place.text else f"    {place.run}")
        if one.further and not one.commands:
            yield _unwrapped("    " + words("and {count} further runs").format(count=one.further))
        yield from (_unwrapped(f"    {words('shown by:')} {command}") for command in one.commands)


def _unwrapped(text: str) -> Text:
    return Text(_without_controls(text), no_wrap=True)


def _card(card: Card, words: Catalogue) -> Iterator[RenderableType]:
    """The statement, then each verdict with its networks."""
    yield _text(card.statement)
    by_verdict: dict[Verdict, list[VerdictLine]] = {}
    for line in card.lines:
        by_verdict.setdefault(line.verdict, []).append(line)
    for lines in by_verdict.values():
        names = ", ".join(line.network for line in lines)
        yield _indented(Text.assemble(_verdict(lines[0], words), _without_controls(f": {names}")))


def _sections(document: Document, words: Catalogue) -> Iterator[RenderableType]:
    yield _text(document.subtitle, "dim")
    for warning in document.warnings:
        yield _text(f"{words('Warning:')} {warning}", "yellow")
    if document.overview_figure:
        yield from _figure(document.overview_figure)
    for section in document.sections:
        yield from _section(section, words)
    for one in document.unanswered:
        yield from (Text(), _text(words("Not asked"), "bold"))
        yield _text(f"{', '.join(one.questions)}: {one.reason}")
    if any(section.all_figures for section in document.sections) or document.overview_figure:
        yield from (Text(), _text(words("Figures are drawn with --format html or pdf.")))


def _section(section: Section, words: Catalogue) -> Iterator[RenderableType]:
    yield from (Text(), _text(section.heading, "bold"))
    for text in (section.question, section.notice, section.summary):
        if text:
            yield from (Text(), _text(text))
    for claim in section.claims:
        yield from _claim(claim, words)
    for name, texts in (
        (words("Limits of several statements:"), section.caveats),
        (words("Next of several statements:"), section.next_steps),
    ):
        yield from (_text(f"{name} {text}") for text in texts)
    yield from _evidence(section.figures, section.tables)
    for name, text in (
        (words("How it was measured"), section.method),
        (words("Sources"), "\n".join(section.sources)),
    ):
        if text:
            yield from (Text(), _text(name, "bold"))
            yield from (_text(line) for line in text.split("\n"))


def _claim(claim: Claim, words: Catalogue) -> Iterator[RenderableType]:
    yield from (Text(), _text(claim.heading, "bold"))
    same = words("the same as for:")
    for finding in claim.findings:
        yield from _finding(finding, words)
    for name, texts in (
        (words("Rule"), claim.threshold),
        (words("Rule"), (f"{same} {claim.rule_of}",) if claim.rule_of else ()),
        (words("Would contradict it"), claim.contradicted_by),
        (words("Limits"), claim.caveats),
        (words("Next"), claim.next_steps),
    ):
        yield from (_indented(_text(f"{name}: {text}")) for text in texts)
    yield from _evidence(claim.figures, claim.tables)
    if claim.shown_before:
        yield _indented(_text(f"{words('Shown above:')} {', '.join(claim.shown_before)}"))


def _finding(finding: FindingElement, words: Catalogue) -> Iterator[RenderableType]:
    line = finding.line
    named = "" if finding.names_network else f", {line.network}"
    meaning = _without_controls(f"{named}: {finding.meaning}")
    yield _indented(Text.assemble(_verdict(line, words), meaning))
    for row in finding.estimates:
        method = f"; {row.method}" if row.method else ""
        yield _indented(_text(f"{row.name}: {row.number}{method}", "dim"), 4)


def _evidence(
    figures: tuple[FigureElement, ...], tables: tuple[TableElement, ...]
) -> Iterator[RenderableType]:
    for figure in figures:
        yield from _figure(figure)
    for table in tables:
        yield from (Text(), _text(f"{table.label}. {table.title}"))
        for columns in _column_groups(table):
            yield from (_table(table, columns), Text())
        if table.note:
            yield from (_text(table.note, "dim"), Text())


def _figure(figure: FigureElement) -> Iterator[RenderableType]:
    yield from (Text(), _text(f"{figure.label}. {figure.title} {figure.note or figure.caption}"))


def _table(table: TableElement, columns: list[int]) -> RenderableType:
    laid_out = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    for column in columns:
        laid_out.add_column(
            _text(table.columns[column]),
            justify="right" if table.numeric[column] else "left",
            overflow="fold",
            max_width=_WIDEST_COLUMN,
        )
    for row in table.rows:
        laid_out.add_row(*(_text(row[column]) for column in columns))
    return laid_out


def _column_groups(table: TableElement) -> list[list[int]]:
    """Groups of columns that fit the terminal; each group repeats the first column."""
    widths = [
        min(_WIDEST_COLUMN, max(len(name), *(len(row[column]) for row in table.rows), 1)) + 2
        for column, name in enumerate(table.columns)
    ]
    groups: list[list[int]] = []
    for column in range(1, len(widths)):
        used = widths[0] + sum(widths[other] for other in groups[-1][1:]) if groups else COLUMNS
        if used + widths[column] > COLUMNS:
            groups.append([0])
        groups[-1].append(column)
    return groups or ([[0]] if table.columns else [])


def _verdict(one: VerdictLine | AnswerSentence, words: Catalogue) -> tuple[str, str]:
    return f"{one.signed} ({words(one.verdict.value)})", _STYLES[one.mark]


def _text(text: str, style: str = "") -> Text:
    return Text(_without_controls(text), style)


def _indented(text: Text, by: int = 2) -> Padding:
    return Padding(text, (0, 0, 0, by), expand=False)


def _without_controls(text: str) -> str:
    return _CONTROLS.sub("\ufffd", text)


def print_text(text: str) -> None:
    """Print `text`; characters that the encoding of standard output lacks become "?"."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    print(text, end="" if text.endswith("\n") else "\n")
