"""The elements of a `Document`: frozen dataclasses whose texts are final."""

from dataclasses import dataclass
from datetime import datetime

from analyses.result import Length, Mark, Slider, Verdict
from analyses.showing.drawing import Picture

ALL_NETWORKS = "all networks"  # what a comparison is about


@dataclass(frozen=True)
class AnswerSentence:
    """One sentence of the answer, the claim that it settles, and a link to the evidence.

    Fields:
        text: what was found, in a sentence with a number.
        hypothesis: the claim. If the networks in the sentence have different verdicts, it names
            the network whose verdict is given.
        verdict, word: the verdict on the claim; the sentence may deny the claim.
        anchor: the claim's place in the report.
        mark, sign: whether the verdict is good or bad news for the training.
    """

    text: str
    hypothesis: str
    verdict: Verdict
    sign: str
    word: str
    anchor: str
    mark: Mark = Mark.NEITHER

    @property
    def signed(self) -> str:
        """The answer on the claim, with its sign: "! yes"."""
        return f"{self.sign} {self.word}".lstrip()


@dataclass(frozen=True)
class VerdictLine:
    """The verdict on one hypothesis for one network, with its first estimate as `number`.

    `mark` and `sign` say whether the verdict is good or bad news for the training.
    """

    network: str
    hypothesis: str
    verdict: Verdict
    sign: str
    word: str
    measure: str
    number: str
    mark: Mark = Mark.NEITHER

    @property
    def signed(self) -> str:
        """The answer on the claim, with its sign: "! yes"."""
        return f"{self.sign} {self.word}".lstrip()


@dataclass(frozen=True)
class Card:
    """One statement with its verdict for each network; `anchor` links to the claim."""

    statement: str
    lines: tuple[VerdictLine, ...]
    anchor: str


@dataclass(frozen=True)
class EstimateRow:
    """One estimate in words: what was estimated, the number with its interval, and the method."""

    name: str
    number: str
    method: str


@dataclass(frozen=True)
class FindingElement:
    """The verdict, meaning and estimates of one hypothesis for one network.

    `names_network` says whether the meaning names what it is about, so that it need not be named
    before it.
    """

    line: VerdictLine
    meaning: str
    estimates: tuple[EstimateRow, ...]
    names_network: bool = False


@dataclass(frozen=True)
class FigureElement:
    """A numbered figure; if drawing failed, `picture` is None and `note` says why.

    `narrow` is the picture for the width of a phone, if it has one of its own.
    """

    label: str
    title: str
    caption: str
    alt: str
    picture: Picture | None
    note: str
    narrow: Picture | None = None
    slider: Slider | None = None


@dataclass(frozen=True)
class TableElement:
    """A numbered table whose cells are texts; `numeric` marks the columns that hold numbers."""

    label: str
    title: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str


@dataclass(frozen=True)
class HeadedParagraph:
    """A paragraph with a heading, in the methods section or in the guide for new readers.

    `is_command` says that its lines are commands to be copied.
    """

    heading: str
    text: str
    is_command: bool = False


@dataclass(frozen=True)
class Place:
    """Where else the numbers of `run` are, one or several by name.

    `link` is an http(s) address, a relative path, or "".
    """

    run: str
    text: str
    link: str

    @property
    def is_on_the_web(self) -> bool:
        """Whether the link leads to a page of the web."""
        return self.link.startswith(("http://", "https://"))


@dataclass(frozen=True)
class Destination:
    """Something that the numbers of runs were also written to, such as TensorBoard.

    Fields:
        kind: what it is.
        places: the place of each run.
        further: how many runs were left out of `places`.
        note: under which names, and what is missing; "" if there is nothing to say.
        commands: the commands that show it, where it is on this machine.
    """

    kind: str
    places: tuple[Place, ...]
    further: int
    note: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class ExplorerElement:
    """The interactive explorer of recorded values; formats without scripts leave it out.

    Fields:
        data: the recorded values that the charts show, as JSON.
        instructions: how to read and use the explorer.
        notes: how the values were computed, and which epochs were merged or layers left out.
        time: what runs to the right, epoch or step.
    """

    data: str
    instructions: str
    notes: tuple[str, ...]
    time: str = "epoch"


@dataclass(frozen=True)
class Claim:
    """One statement, its findings, and the figures and tables that support them.

    Fields:
        anchor: the target of links to this claim, unique in the document.
        heading: the statement.
        findings: one for each network, or one for all networks.
        threshold, contradicted_by, next_steps, caveats: the texts of all networks, each once.
        figures, tables: the evidence that no earlier claim of the section shows.
        shown_before: labels of the evidence that an earlier claim shows, such as "Figure 3".
        rule_of: the heading of an earlier claim whose rule is also that of this one; "" if the rule
            is its own.
        together: what was found in all networks, in one sentence, if their verdicts are the same;
            else "", and each finding says its own.
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
    rule_of: str = ""
    together: str = ""


@dataclass(frozen=True)
class Section:
    """One question with its claims and evidence; if there is no result, `notice` says why.

    Fields:
        figures, tables: the evidence that belongs to no single claim.
        method, sources: how everything in the section was measured.
        command: the command that makes this section again from the recorded runs.
        background: an introduction for readers new to the subject; "" if there is none.
        caveats, next_steps: those that several claims share, each once.
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
    caveats: tuple[str, ...] = ()
    next_steps: tuple[str, ...] = ()

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
    """The quantities of one or more recorded tables, and the meaning of a row of each table."""

    heading: str
    row_meanings: tuple[str, ...]
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class VerdictGroup:
    """The verdicts of one analysis, under its heading."""

    heading: str
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class UnansweredElement:
    """What the recording does not answer, for one reason: what is missing, or does not apply."""

    reason: str
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Shortcut:
    """A link from the first page to what many readers come for."""

    text: str
    anchor: str


@dataclass(frozen=True)
class TourStep:
    """A question of the guided tour, which is asked before its answer is shown.

    Fields:
        question: what is asked.
        look: where to look, and what to think about.
        answer: what was found, in words with numbers.
        anchor: the claim that gives the evidence.
        figure: the label of the figure that it is about, such as "Figure 3"; "" if there is none.
    """

    question: str
    look: str
    answer: str
    anchor: str
    figure: str


@dataclass(frozen=True)
class Document:
    """A report in every format; renderers only lay it out and add no statements of their own.

    Fields:
        title, question, subtitle: the question, the experiment, its date and gradflow's version.
        warnings: problems that the reader must know first, e.g. incomplete runs.
        verdict_counts: a sentence with the number of tested statements and of each verdict.
        answer: what was found, in at most three sentences.
        certainty: how sure that is, in one or two sentences.
        to_do: what to do about what was found wrong, in order.
        meanings: what words of the answer mean, in a sentence each.
        open_question: what cannot be told yet, and what would settle it; "" if nothing is open.
        shortcuts: links to what many readers come for.
        language: the code of its language, such as "id".
        cards: the statements on the first page, most important first.
        overview_figure: the figure on the first page; None if it could not be made.
        sections: one for each outcome with a result, or whose analysis failed.
        explorer: the interactive explorer; None if no layer was recorded.
        methods: how the experiment was made.
        destinations: where else its numbers were written.
        configuration: tables of every entry that the experiment and its runs recorded.
        symbols, glossary: the letters in formulas, and the recorded quantities.
        references: the sources, in order of citation.
        version: gradflow's version.
        created: when the experiment was made; None if unknown.
        primer: how to read the report, for new readers.
        length: how much of the report it holds.
        verdicts_by_analysis: every statement with its verdicts, by analysis. If no section of a
            report of this length tells it, the `anchor` of a card is its place in the longer page,
            such as "report.html#section-2-claim-1", or "" if there is none.
        unanswered: what was not asked, and what would have to be recorded.
        fuller: how to get the next longer report; "" if this is the longest.
        longer: the longer page beside this one, as a relative path; "" if there is none.
        tour: questions to a class, in order; none if the report answers too few of them.
    """

    title: str
    question: str
    subtitle: str
    warnings: tuple[str, ...]
    verdict_counts: str
    answer: tuple[AnswerSentence, ...]
    cards: tuple[Card, ...]
    overview_figure: FigureElement | None
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
    destinations: tuple[Destination, ...] = ()
    length: Length = Length.FULL
    verdicts_by_analysis: tuple["VerdictGroup", ...] = ()
    unanswered: tuple[UnansweredElement, ...] = ()
    fuller: str = ""
    tour: tuple[TourStep, ...] = ()
    certainty: str = ""
    open_question: str = ""
    meanings: str = ""
    to_do: tuple[str, ...] = ()
    shortcuts: tuple[Shortcut, ...] = ()
    longer: str = ""
    language: str = "en"

    @property
    def verdicts(self) -> tuple[Card, ...]:
        """Every statement with its verdicts, in the order of the analyses."""
        return tuple(card for group in self.verdicts_by_analysis for card in group.cards)
