"""The parts of a `Document`: plain frozen data in which every text is final."""

from dataclasses import dataclass
from datetime import datetime

from analyses.result import Slider, Verdict

SIGNS = {Verdict.SUPPORTED: "✓", Verdict.CONTRADICTED: "✗", Verdict.INCONCLUSIVE: "?"}


@dataclass(frozen=True)
class AnswerSentence:
    """One sentence of the answer, the verdict it rests on, and the section that shows why.

    The verdict is that on `hypothesis`, not on the sentence, which may well deny the hypothesis.
    Where the networks that the sentence speaks of have different verdicts, the hypothesis names the
    one whose verdict it is.
    """

    text: str
    hypothesis: str
    verdict: Verdict
    sign: str
    anchor: str


@dataclass(frozen=True)
class VerdictLine:
    """The verdict on one hypothesis for one network: `number` is its first estimate."""

    network: str
    hypothesis: str
    verdict: Verdict
    sign: str
    measure: str
    number: str


@dataclass(frozen=True)
class Card:
    """One statement with the verdict for each network; `anchor` links to its claim."""

    statement: str
    lines: tuple[VerdictLine, ...]
    anchor: str


@dataclass(frozen=True)
class EstimateRow:
    """A number in words: what was estimated, the number with its interval, and how."""

    name: str
    number: str
    method: str


@dataclass(frozen=True)
class FindingElement:
    """What the evidence says of one hypothesis for one network."""

    line: VerdictLine
    meaning: str
    estimates: tuple[EstimateRow, ...]


@dataclass(frozen=True)
class Picture:
    """A drawn figure: the file's content, its suffix (svg or png), width and height in points."""

    data: bytes
    suffix: str
    width: float
    height: float


@dataclass(frozen=True)
class FigureElement:
    """A numbered figure; where it could not be drawn, `picture` is None and `note` says why."""

    label: str
    title: str
    caption: str
    alt: str
    picture: Picture | None
    note: str
    slider: Slider | None = None


@dataclass(frozen=True)
class TableElement:
    """A numbered table of texts; `numeric` tells which columns hold numbers."""

    label: str
    title: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str


@dataclass(frozen=True)
class HeadedParagraph:
    """One paragraph under a heading of its own: on how the experiment was made, or on a term."""

    heading: str
    text: str


@dataclass(frozen=True)
class ExplorerElement:
    """What a page with scripts needs to let the reader look around; other formats leave it out.

    Fields:
        charts: the Vega-Lite specifications of the charts, as JSON without data.
        data: the recorded values behind them, as JSON.
        instructions: how to read and use it.
        notes: what its values stand for, and what was put together or left out.
    """

    charts: str
    data: str
    instructions: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Claim:
    """One statement, what the evidence says of it for each network, and the evidence.

    Fields:
        anchor: what a link to it names, unique in the document.
        heading: the statement.
        findings: one for each network, or one for all.
        threshold, contradicted_by, next_steps, caveats: each text once, whatever the network.
        figures, tables: the evidence that no earlier claim of the section shows.
        shown_before: labels of the evidence that an earlier claim shows, such as "Figure 3".
    """

    anchor: str
    heading: str
    findings: tuple[FindingElement, ...]
    threshold: tuple[str, ...]
    contradicted_by: tuple[str, ...]
    next_steps: tuple[str, ...]
    caveats: tuple[str, ...]
    figures: tuple[FigureElement, ...]
    tables: tuple[TableElement, ...]
    shown_before: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """One question with its evidence; `notice` says why there is none, where there is none.

    Fields:
        figures, tables: the evidence that belongs to no single claim.
        method, sources: how all of it was measured.
        command: what makes this section again from the recorded runs.
        background: what a reader new to the subject must know; "" where there is none.
    """

    anchor: str
    heading: str
    question: str
    notice: str
    summary: str
    claims: tuple[Claim, ...]
    figures: tuple[FigureElement, ...]
    tables: tuple[TableElement, ...]
    method: str
    sources: tuple[str, ...]
    command: str
    background: str = ""

    @property
    def all_figures(self) -> tuple[FigureElement, ...]:
        """Every figure of the section, in reading order."""
        return (*(f for claim in self.claims for f in claim.figures), *self.figures)

    @property
    def all_tables(self) -> tuple[TableElement, ...]:
        """Every table of the section, in reading order."""
        return (*(t for claim in self.claims for t in claim.tables), *self.tables)


@dataclass(frozen=True)
class Term:
    """A recorded quantity in the glossary."""

    name: str
    unit: str
    formula: str
    source: str


@dataclass(frozen=True)
class GlossaryElement:
    """The quantities of one or more recorded tables, and what a row of each stands for."""

    heading: str
    row_meanings: tuple[str, ...]
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Document:
    """A report, whatever its format; renderers lay it out and word nothing.

    Fields:
        title, question, subtitle: what was asked, of which experiment, when and with what version.
        warnings: what a reader must know first, such as runs that are not complete.
        verdict_counts: how many hypotheses were tested, and what became of them.
        answer: the most important findings, three at most, each in a sentence on all networks.
        cards: the statements that the first page shows, most important first.
        overview_figure: the picture that shows it all; None where it could not be made.
        verdicts: every statement in one row, in the order of the sections.
        sections: one for each outcome, those without a result included.
        explorer: for a page with scripts; None where nothing was recorded to explore.
        methods: how the experiment was made.
        configuration: all that the runs say of themselves.
        symbols, glossary: the letters in formulas, and the recorded quantities.
        references: the sources, in order of citation.
        version: of gradflow. created: when the experiment was made; None where unknown.
        primer: what a reader new to such reports must know.
    """

    title: str
    question: str
    subtitle: str
    warnings: tuple[str, ...]
    verdict_counts: str
    answer: tuple[AnswerSentence, ...]
    cards: tuple[Card, ...]
    overview_figure: FigureElement | None
    verdicts: tuple[Card, ...]
    sections: tuple[Section, ...]
    explorer: ExplorerElement | None
    methods: tuple[HeadedParagraph, ...]
    configuration: tuple[TableElement, ...]
    symbols: str
    glossary: tuple[GlossaryElement, ...]
    references: tuple[str, ...]
    version: str
    created: datetime | None
    primer: tuple[HeadedParagraph, ...] = ()
