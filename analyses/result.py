"""What an analysis returns: findings as data, with figures and tables as evidence."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from textwrap import shorten
from typing import TYPE_CHECKING

import pandas as pd

from analyses.wording.numbers import with_interval
from analyses.wording.phrases import slug
from analyses.wording.shares import share_with_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


class Verdict(StrEnum):
    """What the evidence says about a hypothesis."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    INCONCLUSIVE = "inconclusive"

    @property
    def answer(self) -> str:
        """The verdict on a claim as an answer to the question whether it is so."""
        return {"supported": "yes", "contradicted": "no", "inconclusive": "can't tell"}[self.value]


class Mark(StrEnum):
    """What a verdict means to whoever trains the network; the verdict itself does not say that.

    That gradients vanish is bad news; that skips carry most of the gradient is neither.
    """

    GOOD = "good"
    BAD = "bad"
    NEITHER = "neither"
    OPEN = "open"

    @property
    def sign(self) -> str:
        """A sign that tells the marks apart without colour; "" for what is neither."""
        return {"good": "✓", "bad": "!", "neither": "", "open": "?"}[self.value]


class Length(IntEnum):
    """The lengths of a report, and of what is in it the shortest report that has it."""

    SUMMARY = 1
    STANDARD = 2
    FULL = 3
    # Of what no report shows: programs find it in the JSON.
    DATA = 4


# What there is to do about a condition that a network does not have.
LOOK_ELSEWHERE = "Look for another cause: this one is not at work here."
_LONGEST_MEANING = 300  # characters in a Finding's repr


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Fields:
        name: what was estimated, in words.
        value: the point estimate, in `unit`; None if it could not be computed.
        low, high: the ends of the interval at `level`; None if there is no interval; then
            `method` says why.
        unit: unit of value, low and high; "" for a pure number.
        level: coverage of the interval, 0.95 unless said.
        method: how value and interval were computed, and from how many observations.
        of_whole: whether it is a share of a whole, from which noise was subtracted, so that it may
            leave 0 to 100 %.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    level: float = 0.95
    method: str = ""
    of_whole: bool = False

    @property
    def words(self) -> str:
        """The number with its unit and interval, as in `54.3 % (95 % interval 51.2 to 57.9)`.

        A share of a whole that noise drove out of 0 to 100 % is said in words.
        """
        if self.of_whole and self.value is not None:
            return share_with_interval(self.value, self.low, self.high, self.level)
        return self.numbers

    @property
    def numbers(self) -> str:
        """Like `words`, with every number as it was computed: for tables."""
        return with_interval(self.value, self.low, self.high, self.unit, self.level)


@dataclass(frozen=True)
class Slider:
    """How a drawing changes with a slider on a web page.

    Fields:
        label: what the slider runs over, such as "epoch".
        positions: the name of each position, in order.
        shown: the index of the position that the drawing itself shows.
        widths: line width in points at each position, by the gid of a matplotlib artist; 0 hides
            the artist.
        sizes: size at each position relative to the size drawn, by gid; an artist grows about its
            centre.
        names: what an artist shows, by gid.
        texts: text about an artist at each position, e.g. its value, by gid; if the artist is a
            text itself, the words that it shows.
    """

    label: str
    positions: tuple[str, ...]
    shown: int
    widths: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    sizes: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """A figure, drawn when a renderer asks for it.

    Fields:
        key: unique within the analysis; letters, digits and hyphens.
        title: the finding that the figure shows, as a sentence.
        caption: what is drawn: axes, colours, intervals, number of observations.
        alt: alternative text for readers who do not see the figure.
        draw: returns a new matplotlib figure on each call; the caller closes it.
        narrow: draws the same for the width of a phone; None if there is one drawing for all.
        slider: how the drawing changes on a page with a slider; None if it does not.
        length: the shortest report that shows it.
    """

    key: str
    title: str
    caption: str
    alt: str
    draw: Callable[[], "Drawing"]
    narrow: "Callable[[], Drawing] | None" = None
    slider: Slider | None = None
    length: Length = Length.STANDARD

    @property
    def for_phones(self) -> "Figure | None":
        """The same figure for the width of a phone; None if this one serves there too."""
        return replace(self, draw=self.narrow, narrow=None) if self.narrow else None

    def __repr__(self) -> str:
        return f"Figure({self.key!r}, {self.title!r})"

    def _repr_html_(self) -> str:
        from analyses.showing.cards import figure_card  # noqa: PLC0415 - for notebooks only

        return figure_card(self)


@dataclass(frozen=True)
class Table:
    """A small table as evidence for a finding; column names include the unit, if there is one.

    `length` is the shortest report that shows it.
    """

    key: str
    title: str
    frame: pd.DataFrame
    length: Length = Length.FULL

    def __repr__(self) -> str:
        return f"Table({self.key!r}, {self.title!r}, {len(self.frame)} rows)"

    def _repr_html_(self) -> str:
        from analyses.showing.cards import table_card  # noqa: PLC0415 - for notebooks only

        return table_card(self)


@dataclass(frozen=True)
class Finding:
    """What the evidence says about one hypothesis, for one network or for all.

    Fields:
        key: unique within the analysis. The key of a finding on one network ends in "-" and the
            network's name as a slug; the part before is the same for all networks.
        network: the network that it is about; None if it is about a comparison.
        hypothesis: the sentence that was tested.
        contradicted_by: what would contradict it.
        verdict: supported, contradicted or inconclusive.
        estimates: numbers with intervals; the verdict rests on the first.
        threshold: the rule that gives the verdict, in words with its numbers.
        meaning: what it means, in one sentence that includes the number and can stand alone.
        next_step: what to try or measure next, in one sentence.
        caveats: what limits it.
        statement: the hypothesis without the network's name, as a heading over the findings on
            all networks; "" if it is about a comparison.
        evidence: keys of the figures and tables that show it, in reading order.
        effect_of: the topic of the finding that brought it about; "" if that is not known.
        length: the shortest report that tells it in its section.
        bad_if: the verdict that is bad news for the training, and whose opposite is good news;
            None if neither is.
    """

    key: str
    network: str | None
    hypothesis: str
    contradicted_by: str
    verdict: Verdict
    estimates: tuple[Estimate, ...]
    threshold: str
    meaning: str
    next_step: str
    caveats: tuple[str, ...] = ()
    statement: str = ""
    evidence: tuple[str, ...] = ()
    effect_of: str = ""
    length: Length = Length.STANDARD
    bad_if: Verdict | None = None

    @property
    def mark(self) -> Mark:
        """Whether the verdict is good or bad news for the training."""
        if self.verdict is Verdict.INCONCLUSIVE:
            return Mark.OPEN
        if self.bad_if is None:
            return Mark.NEITHER
        return Mark.BAD if self.verdict is self.bad_if else Mark.GOOD

    @property
    def topic(self) -> str:
        """The key without the network: the same for the findings on one hypothesis."""
        return self.key.removesuffix(f"-{slug(self.network)}") if self.network else self.key

    def __repr__(self) -> str:
        meaning = shorten(self.meaning, _LONGEST_MEANING, placeholder=" …")
        return f"Finding({self.key!r}, {self.verdict.value}: {meaning!r})"

    def _repr_html_(self) -> str:
        from analyses.showing.cards import finding_card  # noqa: PLC0415 - for notebooks only

        return finding_card(self)


@dataclass(frozen=True)
class Unanswered:
    """A question that a recording cannot answer.

    Fields:
        about: what was asked, in a few words.
        reason: what would have to be recorded, or why it does not apply, as a clause.
        network: the network of which it was asked; "" if of all.
    """

    about: str
    reason: str
    network: str = ""


@dataclass(frozen=True)
class AnalysisResult:
    """The answer of one analysis: its findings, figures and tables, all frozen.

    Fields:
        summary: the answer in one or two sentences, with numbers.
        findings: one or more findings; empty if the analysis is descriptive only.
        figures, tables: the evidence, in reading order.
        method: how it was computed, with formulas, in one paragraph.
        sources: papers and sections that the method rests on.
        together: one sentence on all networks with their numbers, by the topic of the findings;
            if a topic has none, a report prints the meanings of its findings.
        unanswered: the parts of its question that the recording does not answer.
    """

    summary: str
    findings: tuple[Finding, ...]
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...]
    method: str
    sources: tuple[str, ...]
    together: Mapping[str, str] = field(default_factory=dict)
    unanswered: tuple[Unanswered, ...] = ()
