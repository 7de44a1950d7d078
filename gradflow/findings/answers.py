"""`gradflow.analyze`: the answers of the analyses, as objects and as a frame."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from gradflow.errors import ConfigurationError
from gradflow.findings.sources import Source, experiment_of, keys_of
from gradflow.runs.reading.run import Experiment

if TYPE_CHECKING:
    from analyses.registry import Analysis, Outcome
    from analyses.result import Figure, Finding, Table

_COLUMNS = (
    "analysis", "finding", "topic", "network", "verdict", "hypothesis", "measure", "value", "low",
    "high", "unit", "meaning",
)  # fmt: skip


@dataclass(frozen=True, repr=False)
class Answers:
    """What the analyses of an experiment answered.

    `answers["health_check"]` is the outcome of one analysis; iteration runs over all of them.

    Fields:
        experiment: what was asked.
        outcomes: of each analysis its result, or the reason why there is none, in the order of a
            report.
    """

    experiment: Experiment = field(compare=False)
    outcomes: "tuple[Outcome, ...]"

    @property
    def findings(self) -> "tuple[Finding, ...]":
        """The findings of all analyses, in the order of a report."""
        return tuple(
            finding for one in self.outcomes if one.result for finding in one.result.findings
        )

    @property
    def figures(self) -> "dict[str, Figure]":
        """Each figure by its analysis and key, e.g. `health_check/conditions`."""
        return {
            f"{one.key}/{figure.key}": figure
            for one in self.outcomes
            if one.result
            for figure in one.result.figures
        }

    @property
    def tables(self) -> "dict[str, Table]":
        """Each table by its analysis and key, e.g. `health_check/conditions`."""
        return {
            f"{one.key}/{table.key}": table
            for one in self.outcomes
            if one.result
            for table in one.result.tables
        }

    @property
    def frame(self) -> pd.DataFrame:
        """One row a finding, with the number that its verdict rests on.

        Columns: analysis, finding (its key), topic (the key without the network), network (missing
        if it is about a comparison), verdict, hypothesis, measure (what `value` is), value, low
        and high (the interval), unit, meaning.
        """
        rows = [
            _row(one.key, finding)
            for one in self.outcomes
            if one.result
            for finding in one.result.findings
        ]
        return pd.DataFrame(rows, columns=list(_COLUMNS))

    def finding(self, key: str) -> "Finding":
        """The finding called `key`, e.g. `dead-plain34`.

        Raises `ConfigurationError`, with the known keys, if there is none.
        """
        for one in self.findings:
            if one.key == key:
                return one
        known = ", ".join(one.key for one in self.findings) or "there are none"
        raise ConfigurationError(f"there is no finding {key!r}: choose from {known}")

    def __getitem__(self, analysis: str) -> "Outcome":
        for one in self.outcomes:
            if one.key == analysis:
                return one
        known = ", ".join(one.key for one in self.outcomes)
        raise ConfigurationError(f"there is no analysis {analysis!r}: choose from {known}")

    def __iter__(self) -> "Iterator[Outcome]":
        return iter(self.outcomes)

    def __len__(self) -> int:
        return len(self.outcomes)

    def __repr__(self) -> str:
        count = len(self.findings)
        name = self.experiment.folder.name
        return f"Answers({name!r}, {len(self)} analyses, {count} findings)"

    def _repr_html_(self) -> str:
        from gradflow.findings.cards import answers_card  # noqa: PLC0415 - for notebooks only

        return answers_card(self)


def analyze(
    runs: Source, only: str | Collection[str] = (), *, also: "Iterable[Analysis]" = ()
) -> Answers:
    """Ask a recorded experiment every question that a report asks; nothing is written.

    Example:
        >>> answers = gradflow.analyze("runs/mine")
        >>> answers.frame[["analysis", "network", "verdict", "meaning"]]
        >>> answers.figures["health_check/conditions"]  # shows itself in a notebook

    Args:
        runs: a run, an experiment, the folder or name of one, or several of these, which are
            compared.
        only: keys of the analyses to run, such as `health_check`; empty for all.
        also: analyses of your own, asked after gradflow's; if there is `only`, it names those of
            them to run as well. A report takes what `analyze` returns.

    Raises `RunError` if there is no run or a damaged one, and `ConfigurationError` if `only` names
    an unknown analysis, or if `also` has something else or a key that is taken.
    """
    experiment = experiment_of(runs)
    from analyses.registry import run_all  # noqa: PLC0415 - slow to load

    return Answers(experiment, run_all(experiment, keys_of(only), also=also))


def answers_of(runs: Source | Answers, only: str | Collection[str] = ()) -> Answers:
    """`runs` themselves if they are answers already; otherwise as `analyze`.

    Raises what `analyze` raises, and `ConfigurationError` if `only` names an analysis that the
    answers lack.
    """
    if not isinstance(runs, Answers):
        return analyze(runs, only)
    keys = keys_of(only)
    wanted = {runs[key].key for key in keys}
    kept = tuple(one for one in runs.outcomes if not keys or one.key in wanted)
    return Answers(runs.experiment, kept)


def _row(analysis: str, finding: "Finding") -> dict[str, object]:
    first = finding.estimates[0] if finding.estimates else None
    return {
        "analysis": analysis,
        "finding": finding.key,
        "topic": finding.topic,
        "network": finding.network,
        "verdict": finding.verdict.value,
        "hypothesis": finding.hypothesis,
        "measure": first.name if first else "",
        "value": first.value if first else None,
        "low": first.low if first else None,
        "high": first.high if first else None,
        "unit": first.unit if first else "",
        "meaning": finding.meaning,
    }
