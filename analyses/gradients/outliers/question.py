"""Which layers of a deep network differ from those like them?

Asked only of networks with more layers than can be read one by one. That some layers differ is
contradicted if none is far from the others of its group.
"""

import pandas as pd

from analyses.gradients.outliers.figures import MOST_GROUPS, group_figure, shown_groups
from analyses.gradients.outliers.measure import (
    COMPARED,
    FEWEST_MEMBERS,
    GroupedValues,
    grouped_values,
    has_turns,
)
from analyses.reading.layer_groups import MANY_LAYERS, has_many_layers
from analyses.reading.runs import by_network
from analyses.registry import Analysis, NotApplicableError
from analyses.result import AnalysisResult, Estimate, Figure, Finding, Table, Verdict
from analyses.statistics.fences import FAR, LEAST_FACTOR
from analyses.wording.numbers import number
from analyses.wording.phrases import listing, plural, slug, with_network, without_network
from gradflow.runs.reading.run import Experiment, Run

HYPOTHESIS = "Some layers[ of {}] differ from those like them."
MOST_OUTLIERS = 20  # rows of the table
MOST_NAMED = 5  # in a sentence
WHERE = "The run folder holds the values of every layer: tables gradients, activations, parameters."


def run(experiment: Experiment) -> AnalysisResult:
    """Compare each layer and parameter with its group, network by network.

    Raises `NotApplicableError` if no network has more layers than `MANY_LAYERS`, or nothing to
    compare was recorded.
    """
    networks = {
        name: runs
        for name, runs in by_network(list(experiment.runs)).items()
        if has_many_layers(runs[0].layers)
    }
    if not networks:
        raise NotApplicableError(
            f"no network counts more than {MANY_LAYERS} layers in depth: the other sections show "
            "each layer"
        )
    found = {
        name: kept
        for name, runs in networks.items()
        if (kept := [one for what in COMPARED if (one := grouped_values(name, runs, what))])
    }
    if not found:
        raise NotApplicableError("no run recorded finite values of layers or parameters")
    findings = tuple(_finding(name, kept) for name, kept in found.items())
    return AnalysisResult(
        summary=" ".join([*(finding.meaning for finding in findings), WHERE]),
        findings=findings,
        figures=tuple(figure for name, kept in found.items() for figure in _figures(name, kept)),
        tables=(_outlier_table(found), *_group_tables(found)),
        method=(
            f"{WHERE} "
            "Names alike up to their numbers, of layers of equal type and output shape, are one "
            "group. A value is the median over the recorded steps of the last epoch, and over "
            "seeds. It is an outlier if its logarithm lies beyond Tukey's outer fences, "
            f"{number(FAR)} interquartile ranges outside the quartiles of its group, and it "
            f"differs from the group's median by a factor of {number(LEAST_FACTOR)} at least; in "
            f"groups of {FEWEST_MEMBERS} members and more. Values that are zero or not finite "
            f"are left to the health check.{_on_turns(networks)}"
        ),
        sources=("Tukey 1977, Exploratory data analysis, section 2D (far out values)",),
    )


def _on_turns(networks: dict[str, list[Run]]) -> str:
    """What is different of parameters that are measured in turns, if some are."""
    every = [run for runs in networks.values() for run in runs]
    if not any(has_turns(run, what) for run in every for what in COMPARED):
        return ""
    return (
        " Of what is measured of parameters in turns, a value is the median over the rounds of "
        "turns that end in the last epoch in which one does. In a round each parameter has its "
        "turn once, in different steps."
    )


def _figures(network: str, found: list[GroupedValues]) -> list[Figure]:
    kinds = {kind: [one for one in found if one.quantity.of == kind] for kind in _kinds(found)}
    return [group_figure(network, kind, kept) for kind, kept in kinds.items()]


def _kinds(found: list[GroupedValues]) -> list[str]:
    return list(dict.fromkeys(one.quantity.of for one in found))


def _finding(network: str, found: list[GroupedValues]) -> Finding:
    outliers = _outliers(found)
    figures = [f"{kind}s-{slug(network)}" for kind in _kinds(found)]
    return Finding(
        key=slug(f"outliers-{network}"),
        network=network,
        hypothesis=with_network(HYPOTHESIS, network),
        contradicted_by="No value far from those of its group.",
        verdict=Verdict.SUPPORTED if len(outliers) else Verdict.CONTRADICTED,
        estimates=(
            Estimate(
                "layers and parameters with a value far from their group",
                float(outliers["name"].nunique()),
                method="a count, no interval: nothing was sampled",
            ),
        ),
        threshold=(
            f"supported if a value lies {number(FAR)} interquartile ranges outside the quartiles "
            f"of its group, and a factor of {number(LEAST_FACTOR)} from its median"
        ),
        meaning=_meaning(network, found, outliers),
        next_step=(
            "Look at the named layers first: at their initialization, and at what loads or "
            "freezes their weights."
            if len(outliers)
            else "Look for a cause that is common to all layers: no single one differs."
        ),
        caveats=(
            "A value far from its group is unlike the others, not wrong: the first and the last "
            "blocks of a network often differ.",
        ),
        statement=without_network(HYPOTHESIS),
        evidence=(*figures, "outliers", *(one.quantity.key for one in found)),
    )


def _meaning(network: str, found: list[GroupedValues], outliers: pd.DataFrame) -> str:
    kinds = {one.quantity.of: one for one in reversed(found)}
    counted = listing(
        [f"{plural(len(one.values), kind)} in {plural(len(one.groups), 'group')}"
         for kind, one in reversed(kinds.items())]
    )  # fmt: skip
    if not len(outliers):
        return f"In {network} none of {counted} is far from those of its group."
    first = farthest(outliers.drop_duplicates("name"), MOST_NAMED)
    said = [
        f"{row.name_} ({row.quantity}, {number(row.times)} times the group's median)"
        for row in first.rename(columns={"name": "name_"}).itertuples()
    ]
    left = outliers["name"].nunique() - len(first)
    return (
        f"In {network}, of {counted}, {outliers['name'].nunique():,} are far from those of their "
        f"group: {listing([*said, *([f'{left:,} more'] if left else [])])}."
    )


def _outliers(found: list[GroupedValues]) -> pd.DataFrame:
    """All outliers of one network, farthest first, with their quantity."""
    parts = [one.outliers.assign(quantity=one.quantity.name) for one in found]
    pooled = pd.concat(parts, ignore_index=True)
    times = pooled["times"].where(pooled["times"] > 1, 1 / pooled["times"])
    return pooled.loc[times.sort_values(ascending=False, kind="stable").index]


def farthest(outliers: pd.DataFrame, most: int) -> pd.DataFrame:
    """`most` rows of `outliers` in their order: of each quantity in turn the farthest.

    One enlarged block multiplies the gradients of all before it; by distance alone these would hide
    the block, whose weights are the cause.
    """
    turn = outliers.groupby("quantity").cumcount().sort_values(kind="stable").index[:most]
    return outliers[outliers.index.isin(turn)]


def _outlier_table(found: dict[str, list[GroupedValues]]) -> Table:
    parts = [_outliers(kept).assign(network=name) for name, kept in found.items()]
    whole = pd.concat(parts, ignore_index=True)
    title = "Values far from those of their group"
    if len(whole) > MOST_OUTLIERS:
        title = (
            f"{MOST_OUTLIERS} of the {len(whole):,} values far from those of their group: the "
            "farthest of each quantity"
        )
        share = -(-MOST_OUTLIERS // len(found))
        whole = pd.concat([farthest(part, share) for part in parts], ignore_index=True)
    columns = {
        "network": "network",
        "name": "name",
        "quantity": "quantity",
        "value": "value",
        "median": "median of its group",
        "times": "value / median",
    }
    return Table("outliers", title, whole[list(columns)].rename(columns=columns))


def _group_tables(found: dict[str, list[GroupedValues]]) -> list[Table]:
    tables = []
    for what in COMPARED:
        every = [one for kept in found.values() for one in kept if one.quantity == what]
        if every:
            groups = max(len(one.groups) for one in every)
            limit = "" if groups <= MOST_GROUPS else f", {MOST_GROUPS} groups of {groups:,}"
            title = f"{what.name.capitalize()} by group, at the last epoch{limit}"
            parts = [
                one.groups[one.groups["group"].isin(shown_groups(one))].assign(network=one.network)
                for one in every
            ]
            frame = pd.concat(parts, ignore_index=True)
            columns = ["network", "group", "members", "median", "lowest", "highest", "outliers"]
            tables.append(Table(what.key, title, frame[columns]))
    return tables


ANALYSIS = Analysis(
    key="outliers",
    title="Outlying layers",
    question="Which layers of a deep network differ from those like them?",
    run=run,
    background=(
        "A network of many equal blocks has the same layer many times over; a layer that trains "
        "otherwise than its like is where to look first."
    ),
    order=105,
)
