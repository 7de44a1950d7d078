"""The parts of a `Document`: plain frozen data in which every text is final."""

from dataclasses import dataclass

from analyses.result import Verdict

SIGNS = {Verdict.SUPPORTED: "✓", Verdict.CONTRADICTED: "✗", Verdict.INCONCLUSIVE: "?"}


@dataclass(frozen=True)
class AnswerSentence:
    """One sentence of the answer, the verdict it rests on, and the section that shows why.

    The verdict is that on `hypothesis`, not on the sentence, which may well deny the hypothesis.
    """

    text: str
    hypothesis: str
    verdict: Verdict
    sign: str
    section: str


@dataclass(frozen=True)
class VerdictRow:
    """One tested hypothesis in the overview: `number` is its first estimate with interval."""

    hypothesis: str
    network: str
    verdict: Verdict
    sign: str
    measure: str
    number: str
    section: str


@dataclass(frozen=True)
class EstimateRow:
    """A number in words: what was estimated, the number with its interval, and how."""

    name: str
    number: str
    method: str


@dataclass(frozen=True)
class FindingPart:
    """What the evidence says of one hypothesis."""

    hypothesis: str
    network: str
    verdict: Verdict
    sign: str
    meaning: str
    estimates: tuple[EstimateRow, ...]
    threshold: str
    contradicted_by: str
    next_step: str
    caveats: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """A drawn figure: the file's content, its suffix (svg or png), width and height in points."""

    data: bytes
    suffix: str
    width: float
    height: float


@dataclass(frozen=True)
class FigurePart:
    """A numbered figure; where it could not be drawn, `picture` is None and `note` says why."""

    label: str
    title: str
    caption: str
    alt: str
    picture: Picture | None
    note: str


@dataclass(frozen=True)
class TablePart:
    """A numbered table of texts; `numeric` tells which columns hold numbers."""

    label: str
    title: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str


@dataclass(frozen=True)
class Section:
    """One question with its evidence; `notice` says why there is none, where there is none."""

    anchor: str
    heading: str
    question: str
    notice: str
    summary: str
    findings: tuple[FindingPart, ...]
    figures: tuple[FigurePart, ...]
    tables: tuple[TablePart, ...]
    method: str
    sources: tuple[str, ...]
