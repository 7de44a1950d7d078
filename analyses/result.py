"""What an analysis returns: findings as data, with the figures and tables that show them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import pandas as pd

from analyses.wording.numbers import with_interval
from analyses.wording.phrases import slug

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


class Verdict(StrEnum):
    """What the evidence says of a hypothesis."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Fields:
        name: what was estimated, in words.
        value: the point estimate, in `unit`; None where it could not be had.
        low, high: the ends of the interval at `level`; None where there is none, and `method`
            says why.
        unit: unit of value, low and high; "" for a pure number.
        level: coverage of the interval, 0.95 unless said.
        method: how value and interval were computed, and from how many observations.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    level: float = 0.95
    method: str = ""

    @property
    def words(self) -> str:
        """The number with its unit and interval, as in `54.3 % (95 % interval 51.2 to 57.9)`."""
        return with_interval(self.value, self.low, self.high, self.unit, self.level)


@dataclass(frozen=True)
class Slider:
    """What of a drawing changes from one position of a slider to the next, for a page on a screen.

    Fields:
        label: what the slider runs over, such as "epoch".
        positions: the name of each position, in order.
        shown: the index of the position that the drawing itself shows.
        widths: by the gid of an artist of the drawing, its line width in points at each position;
            0 hides it.
        sizes: by the gid of an artist, its size at each position relative to that drawn; it grows
            about its centre.
        names: by the gid of an artist, what it is.
        texts: by the gid of an artist, what is said of it at each position, such as its value; of
            one that is itself a text, what it reads.
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
        draw: returns a new matplotlib figure at each call; the caller closes it.
        slider: how the drawing changes on a page with a slider; None where it does not.
    """

    key: str
    title: str
    caption: str
    alt: str
    draw: Callable[[], "Drawing"]
    slider: Slider | None = None


@dataclass(frozen=True)
class Table:
    """A small table behind a finding; its column names carry units where there are any."""

    key: str
    title: str
    frame: pd.DataFrame


@dataclass(frozen=True)
class Finding:
    """What the evidence says of one hypothesis, for one network or for all.

    Fields:
        key: unique within the analysis; that of a finding on one network ends in "-" and the
            network's name as a slug, and what stands before is common to all networks.
        network: the network it speaks of; None where it speaks of the comparison.
        hypothesis: the sentence that was tested.
        contradicted_by: what would count against it.
        verdict: supported, contradicted or inconclusive.
        estimates: numbers with intervals; the first is the one the verdict rests on.
        threshold: the rule that turned the number into the verdict, in words with its numbers.
        meaning: what it means, in one sentence that can stand alone, with the number.
        next_step: what to try or measure next, in one sentence.
        caveats: what limits it.
        statement: the hypothesis without the network's name, as a heading over the findings on
            all networks; "" where it speaks of the comparison.
        evidence: keys of the figures and tables of the analysis that show it, in reading order.
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

    @property
    def topic(self) -> str:
        """What the findings of one analysis on one hypothesis share, whatever the network."""
        return self.key.removesuffix(f"-{slug(self.network)}") if self.network else self.key


@dataclass(frozen=True)
class AnalysisResult:
    """The answer of one analysis: its findings, figures and tables, all frozen.

    Fields:
        summary: the answer in one or two sentences, with numbers.
        findings: one or more findings; empty where the analysis is descriptive only.
        figures, tables: the evidence, in reading order.
        method: how it was computed, with formulas, in one paragraph.
        sources: papers and sections the method rests on.
        together: by the topic of findings on several networks, one sentence that speaks of all of
            these with their numbers; where a topic has none, the meanings of its findings tell.
    """

    summary: str
    findings: tuple[Finding, ...]
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...]
    method: str
    sources: tuple[str, ...]
    together: Mapping[str, str] = field(default_factory=dict)
