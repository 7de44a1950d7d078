"""What changed from the first experiment to each of the others?

Asked if several experiments are compared. Runs of equal network and seed are compared layer by
layer by `analyses.comparison.runs`, which also says what would contradict a change. If each
experiment holds a single run, these two runs are compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from analyses.comparison.measure import DEFAULT_MARGINS, Margins
from analyses.comparison.runs import compare_runs
from analyses.reading.matching import same_images
from analyses.reading.options import configuration_differences
from analyses.registry import Analysis, NotApplicableError
from analyses.result import AnalysisResult, Figure, Finding, Table, Verdict
from analyses.wording.phrases import listing, plural, slug
from gradflow.errors import RunError
from gradflow.runs.reading.run import Experiment, Run

# The table of options that `compare_runs` makes for a pair; it is shown once per comparison.
_OPTIONS = "options"


@dataclass(frozen=True, eq=False)
class RunPair:
    """Two runs to be compared, the name of the pair, and the result or why there is none."""

    name: str
    first: Run
    second: Run
    result: AnalysisResult | None = None
    why_not_compared: str = ""


@dataclass(frozen=True, eq=False)
class ExperimentComparison:
    """The names of two experiments, their runs in pairs, and runs without a partner."""

    first: str
    second: str
    pairs: tuple[RunPair, ...]
    unpaired: tuple[str, ...]

    @property
    def compared(self) -> list[tuple[RunPair, AnalysisResult]]:
        """The pairs that could be compared, with their results."""
        return [(pair, pair.result) for pair in self.pairs if pair.result is not None]


def run(experiment: Experiment, margins: Margins = DEFAULT_MARGINS) -> AnalysisResult:
    """Compare every member of `experiment` with the first member, run by run.

    `margins` says what counts as a change. Figures and tables show the first pair of runs of each
    network; a table lists all pairs.

    Raises `NotApplicableError` for a single experiment, or if no two runs can be paired.
    """
    if not experiment.members:
        raise NotApplicableError("a single experiment was given: name two folders to compare them")
    first, *others = zip(experiment.members, experiment.description["labels"], strict=True)
    comparisons = [_compare(first, other, margins) for other in others]
    results = [result for one in comparisons for _, result in one.compared]
    if not results:
        raise NotApplicableError(_why_nothing(comparisons))
    return AnalysisResult(
        summary=" ".join(_summary(one) for one in comparisons),
        findings=tuple(finding for one in comparisons for finding in _findings(one)),
        figures=tuple(figure for one in comparisons for figure in _figures(one)),
        tables=(
            *(table for one in comparisons for table in _tables(one)),
            Table("pairs", "All pairs of runs", _all_pairs(comparisons)),
        ),
        method=f"Runs of equal network and seed are compared. {results[0].method}",
        sources=results[0].sources,
    )


def pair_runs(first: Experiment, second: Experiment) -> list[tuple[str, Run, Run]]:
    """Pairs of runs to compare: the name of the pair, and a run of each experiment.

    Runs of equal network and seed are a pair. If a network has one run in each experiment, these
    are a pair whatever their seeds; so are the runs of two experiments of a single run.
    """
    if len(first.runs) == len(second.runs) == 1:
        return [(_common_name(first.runs[0], second.runs[0]), first.runs[0], second.runs[0])]
    pairs = []
    for network in first.networks:
        ours, theirs = first.of_network(network), second.of_network(network)
        if len(ours) == len(theirs) == 1:
            pairs.append((network, ours[0], theirs[0]))
            continue
        partners = {run.seed: run for run in theirs}
        pairs += [
            (f"{network} seed {run.seed}", run, partners[run.seed])
            for run in ours
            if run.seed is not None and run.seed in partners
        ]
    return pairs


def _common_name(first: Run, second: Run) -> str:
    if first.network == second.network:
        return first.network
    return f"{second.network} against {first.network}"


def _compare(
    first: tuple[Experiment, str], second: tuple[Experiment, str], margins: Margins
) -> ExperimentComparison:
    pairs = [
        _compare_pair(name, ours, theirs, margins)
        for name, ours, theirs in pair_runs(first[0], second[0])
    ]
    paired = {id(run) for pair in pairs for run in (pair.first, pair.second)}
    unpaired = [
        run.name for one in (first[0], second[0]) for run in one.runs if id(run) not in paired
    ]
    return ExperimentComparison(first[1], second[1], tuple(pairs), tuple(unpaired))


def _compare_pair(name: str, first: Run, second: Run, margins: Margins) -> RunPair:
    try:
        return RunPair(name, first, second, compare_runs(first, second, margins))
    except RunError as error:  # nothing in common; other pairs may still be compared
        return RunPair(name, first, second, why_not_compared=str(error))


def _findings(one: ExperimentComparison) -> list[Finding]:
    """One finding per pair of runs; all pairs of two experiments have the same statement."""
    findings = []
    for pair, result in one.compared:
        (finding,) = result.findings
        findings.append(
            replace(
                finding,
                key=f"{_key(one)}-{slug(pair.name)}",
                network=pair.name,
                statement=(
                    f"{one.second} differs from {one.first} at some layer by more than the margins."
                ),
                evidence=_evidence(one, pair, result),
                caveats=(*_caveats(one, pair), *finding.caveats),
            )
        )
    return findings


def _key(one: ExperimentComparison) -> str:
    return f"difference-{slug(one.second)}-{slug(one.first)}"


def _evidence(one: ExperimentComparison, pair: RunPair, result: AnalysisResult) -> tuple[str, ...]:
    options = (f"options-{_key(one)}",) if pair is one.compared[0][0] else ()
    if pair not in _shown(one):
        return options
    figures = [figure.key for figure in result.figures]
    tables = [table.key for table in result.tables if table.key != _OPTIONS]
    return (*options, *(_own_key(key, one, pair) for key in (*figures, *tables)))


def _own_key(key: str, one: ExperimentComparison, pair: RunPair) -> str:
    return slug(f"{key}-{_key(one)}-{pair.name}")


def _shown(one: ExperimentComparison) -> list[RunPair]:
    """The first pair of each network: pairs of other seeds would show much the same."""
    return list({pair.first.network: pair for pair, _ in reversed(one.compared)}.values())


def _figures(one: ExperimentComparison) -> list[Figure]:
    return [
        replace(figure, key=_own_key(figure.key, one, pair))
        for pair, result in one.compared
        if pair in _shown(one)
        for figure in result.figures
    ]


def _tables(one: ExperimentComparison) -> list[Table]:
    if not one.compared:
        return []
    pair = one.compared[0][0]
    options = configuration_differences(pair.first, pair.second)
    options = options[options["option"] != "network"]
    options = options.rename(columns={"first": one.first, "second": one.second})
    title = f"Options that differ between {one.first} and {one.second}"
    tables = [Table(f"options-{_key(one)}", title, options.reset_index(drop=True))]
    return tables + [
        replace(table, key=_own_key(table.key, one, pair), title=f"{pair.name}: {table.title}")
        for pair, result in one.compared
        if pair in _shown(one)
        for table in result.tables
        if table.key != _OPTIONS
    ]


def _caveats(one: ExperimentComparison, pair: RunPair) -> tuple[str, ...]:
    caveats = []
    if not same_images(pair.first, pair.second):
        caveats.append(
            f"The images of {one.first} and {one.second} differ: nothing is compared image by "
            "image, and the data may be the cause of the changes."
        )
    if pair.first.seed != pair.second.seed:
        caveats.append(
            f"The seeds differ ({pair.first.seed} and {pair.second.seed}): other initial weights "
            "and another order of batches change a run too."
        )
    if one.unpaired:
        caveats.append(f"Without a partner of equal network and seed: {listing(one.unpaired)}.")
    return tuple(caveats)


def _summary(one: ExperimentComparison) -> str:
    if not one.compared:
        return f"{one.second} and {one.first} could not be compared: {_why_nothing([one])}."
    said = [finding.meaning for _, result in one.compared for finding in result.findings]
    if len(said) <= 2:
        return " ".join(said)
    counts = [
        (sum(finding.verdict is verdict for _, r in one.compared for finding in r.findings), words)
        for verdict, words in (
            (Verdict.SUPPORTED, "differ"),
            (Verdict.CONTRADICTED, "hardly differ"),
            (Verdict.INCONCLUSIVE, "cannot be told apart"),
        )
    ]
    counted = listing([f"{count} {words}" for count, words in counts if count])
    return f"Of {plural(len(said), 'pair')} of runs of {one.first} and {one.second}, {counted}."


def _all_pairs(comparisons: Sequence[ExperimentComparison]) -> pd.DataFrame:
    rows = []
    for one in comparisons:
        for pair in one.pairs:
            verdict = str(pair.result.findings[0].verdict) if pair.result else "not compared"
            row = {"first": pair.first.name, "second": pair.second.name, "verdict": verdict}
            share = pair.result.findings[0].estimates[-1] if pair.result else None
            row["compared"] = (
                share.method.removeprefix("no interval: ") if share else pair.why_not_compared
            )
            rows.append(row)
        rows += [
            {"first": name, "second": "", "verdict": "no partner", "compared": ""}
            for name in one.unpaired
        ]
    return pd.DataFrame(rows, columns=["first", "second", "verdict", "compared"])


def _why_nothing(comparisons: Sequence[ExperimentComparison]) -> str:
    reasons = [pair.why_not_compared for one in comparisons for pair in one.pairs]
    if reasons:
        return reasons[0]
    return (
        "they have no common network with equal seeds, and only such runs are compared: "
        "name the folders of two single runs to compare any two"
    )


ANALYSIS = Analysis(
    key="what_changed",
    title="What changed",
    question="What changed from the first experiment to each of the others?",
    run=run,
    background=(
        "Two trainings are compared layer by layer: a quantity has changed if it differs between "
        "them by more than it varies over the steps of each."
    ),
    order=0,
    comparing=True,
)
