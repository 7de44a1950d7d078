"""Renders the `Document` as short Markdown without pictures, for a comment on a pull request."""

from collections import Counter
from collections.abc import Iterator

from analyses.result import Verdict
from analyses.wording.translatable import message
from reports.elements import (
    Card,
    Claim,
    Destination,
    Document,
    FindingElement,
    Place,
    Section,
    VerdictLine,
)
from reports.languages.catalogue import Catalogue, catalogue_of
from reports.markdown.escaping import escape_in_html, escape_inline

# In bytes. GitHub refuses comments over 65,536 characters; the rest is for who posts the comment.
LONGEST_COMMENT = 60_000
FULL_REPORT_HINT = message(
    "The report as HTML and PDF has figures, tables, methods and references: "
    "`python -m gradflow.report` writes it."
)
_HEAD = (message("| found | network | claim | number |"), "|---|---|---|---|")


def render_markdown(document: Document, longest: int = LONGEST_COMMENT) -> bytes:
    """The report in GitHub Flavored Markdown, in UTF-8; the same document gives the same bytes.

    Every text is escaped, so that none becomes markup, a link or a mention. If the report is longer
    than `longest` bytes, the last sections and verdicts are left out, and a line says so.
    """
    words = catalogue_of(document.language)
    hint = words(FULL_REPORT_HINT)
    head = (words(_HEAD[0]), _HEAD[1])
    front = [*_front(document, words)]
    every_row = [*_verdict_rows(document)]
    left_out = _verdicts_left_out(len(every_row), words)
    room = longest - _size([*front, *head, left_out, hint, *[""] * 4])
    room -= _size(_sections_left_out(document.sections, words))
    room -= _size(_unanswered(document, words))
    rows, rows_left = _first_that_fit(every_row, room)
    sections, sections_left = _first_that_fit(
        ["\n".join(_section(section, words)) for section in document.sections], room - _size(rows)
    )
    lines = [*front, *([*head, *rows] if rows else []), ""]
    room -= _size(rows) + _size(sections)
    if rows_left:
        lines += [_verdicts_left_out(rows_left, words), ""]
    lines += sections
    lines += _unanswered(document, words)
    if sections_left:
        lines += [*_sections_left_out(document.sections[len(sections) :], words), ""]
    destinations, destinations_left = _first_that_fit(
        [_destination(one, words) for one in document.destinations], room
    )
    if destinations and not destinations_left:
        lines += [words("Also written to:"), "", *destinations, ""]
    return "\n".join([*lines, hint, ""]).encode("utf-8", errors="replace")


def _front(document: Document, words: Catalogue) -> Iterator[str]:
    yield f"## {escape_inline(document.title)}"
    yield from ("", f"**{escape_inline(document.question)}**", "")
    for warning in document.warnings:
        yield from (f"> {escape_inline(warning)}", "")
    for sentence in document.answer:
        found = f"{words('Claim:')} {sentence.hypothesis} {words('Found:')} {sentence.signed}"
        yield f"- {escape_inline(sentence.text)} ({escape_inline(found)})"
    if document.to_do:
        yield from ("", f"{words('What to do:')} {escape_inline(' '.join(document.to_do))}")
    for text in (document.certainty, document.open_question):
        if text:
            yield from ("", escape_inline(text))
    yield from ("", escape_inline(document.verdict_counts), "")


def _unanswered(document: Document, words: Catalogue) -> list[str]:
    """What was not asked, folded; left out with the sections if there is no room."""
    if not document.unanswered:
        return []
    rows = [
        f"- {escape_inline(', '.join(one.questions))}: {escape_inline(one.reason)}"
        for one in document.unanswered
    ]
    heading = escape_in_html(words("What was not asked"))
    return [f"<details><summary>{heading}</summary>", "", *rows, "", "</details>", ""]


def _destination(destination: Destination, words: Catalogue) -> str:
    places = ", ".join(map(_place, destination.places))
    further = (
        " " + words("and {count} further runs").format(count=destination.further)
        if destination.further
        else ""
    )
    note = f" ({escape_inline(destination.note)})" if destination.note else ""
    return f"- {escape_inline(destination.kind)}{note}: {places}{further}"


def _place(place: Place) -> str:
    """The run, with a link if its place is on the web; files are not beside a comment."""
    if not place.is_on_the_web:
        return escape_inline(f"{place.run} ({place.text})" if place.text else place.run)
    # A dollar sign could begin a formula; no other character of an address ends its brackets.
    address = place.link.replace("$", "%24")
    return f"[{escape_inline(place.run)}](<{address}>)"


def _verdict_rows(document: Document) -> Iterator[str]:
    for card in document.verdicts:
        for line in card.lines:
            yield _verdict_row(card, line)


def _verdict_row(card: Card, line: VerdictLine) -> str:
    statement = card.statement if len(card.lines) == 1 else line.hypothesis
    texts = (line.signed, line.network, statement, line.number)
    return f"| {' | '.join(escape_inline(text) for text in texts)} |"


def _section(section: Section, words: Catalogue) -> Iterator[str]:
    """A folded section: the tested statements, the verdicts, and their meaning."""
    counts = Counter(one.line.verdict for claim in section.claims for one in claim.findings)
    said = [f"{counts[one]} {words(one.answer)}" for one in Verdict if counts[one]]
    counted = f" ({', '.join(said)})" if said else ""
    heading = escape_in_html(f"{section.heading}{counted}")
    yield from (f"<details><summary>{heading}</summary>", "")
    if section.question:
        yield from (f"**{escape_inline(section.question)}**", "")
    if not section.claims:  # else the summary says what the findings below say
        yield escape_inline(section.notice or section.summary)
    for claim in section.claims:
        yield from _claim(claim, words)
    if section.caveats:
        limits = words("Limits of several statements:")
        yield from ("", f"{limits} {escape_inline(' '.join(section.caveats))}")
    yield from ("", "</details>", "")


def _claim(claim: Claim, words: Catalogue) -> Iterator[str]:
    yield from ("", f"#### {escape_inline(claim.heading)}", "")
    yield from (_finding(finding, words) for finding in claim.findings)
    rule = claim.threshold or (
        (f"{words('the same as for:')} {claim.rule_of}",) if claim.rule_of else ()
    )
    for name, texts in ((words("Rule"), rule), (words("Limits"), claim.caveats)):
        if texts:
            yield f"- {name}: {escape_inline(' '.join(texts))}"


def _finding(finding: FindingElement, words: Catalogue) -> str:
    line = finding.line
    number = f"{line.measure}: {line.number}" if line.measure else line.number
    named = "" if finding.names_network else f", {escape_inline(line.network)}"
    return (
        f"- **{line.signed}** ({words(line.verdict.value)}){named}: "
        f"{escape_inline(finding.meaning)} _{escape_inline(number)}_"
    )


def _verdicts_left_out(count: int, words: Catalogue) -> str:
    text = words("{count} further verdicts are left out here: a comment must not be longer.")
    return text.format(count=count)


def _sections_left_out(sections: tuple[Section, ...], words: Catalogue) -> list[str]:
    names = ", ".join(section.heading for section in sections)
    text = words("Left out here, since a comment must not be longer: {names}.")
    return [text.format(names=escape_inline(names))]


def _first_that_fit(parts: list[str], room: int) -> tuple[list[str], int]:
    """The first of `parts` that fit into `room` bytes, and how many are left out."""
    kept: list[str] = []
    for part in parts:
        room -= _size([part])
        if room < 0:
            break
        kept.append(part)
    return kept, len(parts) - len(kept)


def _size(lines: list[str]) -> int:
    return sum(len(line.encode("utf-8", errors="replace")) + 1 for line in lines)
