"""What reaches the optimizer of the gradient that backward left, in all and by named group?

Description only: how much a training is to clip is its author's choice.
"""

from functools import partial

import pandas as pd

from analyses.gradients.groups.figures import MAX_GROUPS, draw_clipping, draw_groups
from analyses.gradients.groups.measure import ROUNDING, NetworkGroups, network_groups
from analyses.reading.options import turns_of_updates
from analyses.reading.runs import by_network
from analyses.registry import Analysis, NotApplicableError
from analyses.result import AnalysisResult, Figure, Length, Table
from analyses.wording.numbers import number, percent
from analyses.wording.phrases import listing, plural, slug
from analyses.wording.translatable import Said
from gradflow.runs.reading.run import Experiment


def run(experiment: Experiment) -> AnalysisResult:
    """Show clipping over the steps of each network, and its named groups.

    Raises `NotApplicableError` if nothing changed a gradient and no groups were named.
    """
    shown = [network_groups(name, runs) for name, runs in by_network(list(experiment.runs)).items()]
    changed = [one for one in shown if one.was_changed]
    grouped = [one for one in shown if len(one.groups)]
    if not changed and not grouped:
        raise NotApplicableError(_why_not(shown))
    figures = [_clipping_figure(experiment.networks, changed)] if changed else []
    tables = [Table("clipping", "What the optimizers received", _clipping_table(shown))]
    if grouped:
        figures += [_group_figure(one) for one in grouped]
        tables.append(
            Table("groups", "The groups of each network", _group_table(grouped), Length.STANDARD)
        )
    return AnalysisResult(
        summary=" ".join([*map(_clipping_sentence, shown), *map(_group_sentence, grouped)]),
        findings=(),
        figures=tuple(figures),
        tables=tuple(tables),
        method=(
            "The norm of the gradient with respect to all trained parameters, when the last "
            "backward pass of the step had ended, and when the optimizer began. Their ratio is 1 "
            "if nothing changed the gradient; it counts as changed beyond a rounding of "
            f"{ROUNDING:g}. Steps that a gradient scaler skipped are left out. Norms of a group "
            "are roots of the sums of squares over its parameters; the update is relative to the "
            f"norm of its weights. Medians over steps and seeds.{_on_turns(experiment)}"
        ),
        sources=("Pascanu et al. 2013, On the difficulty of training recurrent neural networks",),
    )


def _on_turns(experiment: Experiment) -> str:
    """What is different of updates that are measured in turns, if they are."""
    if all(turns_of_updates(run) == 1 for run in experiment.runs):
        return ""
    return (
        " Updates are measured in turns: that of a group is of a round of turns, in which each of "
        "its parameters had one, beside its weights in that round. All other numbers are those of "
        "single steps."
    )


def _why_not(shown: list[NetworkGroups]) -> str:
    steps = sum(one.steps for one in shown)
    if not steps:
        return (
            "no run recorded what lies between backward and optimizer (clipping_factor of the "
            "table steps), nor groups: give the Tracer the optimizer, or groups="
        )
    return (
        f"nothing clipped or changed a gradient between backward and optimizer in any of "
        f"{plural(steps, 'recorded step')}, and no groups of parameters were named (groups= of the "
        "Tracer)"
    )


def _clipping_sentence(one: NetworkGroups) -> str:
    if one.changed is None or one.factor is None or one.smallest is None:
        return f"Of {one.network} it is not known what its optimizer received."
    if not one.changed:
        return (
            f"Nothing changed the gradient of {one.network} before its optimizer, in any of "
            f"{plural(one.steps, 'recorded step')}: if it was to be clipped, the bound was never "
            "reached, or clipping came before backward."
        )
    return (
        f"{one.network} received a changed gradient in {percent(one.changed)} of "
        f"{plural(one.steps, 'recorded step')}: the median factor of all is {number(one.factor)}, "
        f"the smallest {number(one.smallest)}."
    )


def _group_sentence(one: NetworkGroups) -> str:
    known = one.groups.dropna(subset=["share"])
    if known.empty:
        return ""
    largest = known.loc[known["share"].astype(float).idxmax()]
    return Said(
        "Of the groups of {network}, {group} has the largest part of the squared gradient norm, "
        "{share} at the median.",
        network=one.network,
        group=str(largest["group"]),
        share=percent(largest["share"]),
    )


def _clipping_figure(networks: list[str], changed: list[NetworkGroups]) -> Figure:
    said = listing(
        [
            Said(
                "{share} of the steps of {network}",
                share=percent(one.changed or 0),
                network=one.network,
            )
            for one in changed
        ]
    )
    return Figure(
        key="clipping",
        title=Said(
            "Between backward and optimizer the gradient was changed in {shares}", shares=said
        ),
        caption=(
            "The norm of the gradient with respect to all parameters by step: as the last backward "
            "pass left it (dashed) and as the optimizer received it (solid). Between them lies "
            "what clipping took away. Medians over neighbouring steps and seeds."
        ),
        alt=" ".join(map(_clipping_sentence, changed)),
        draw=partial(draw_clipping, networks, changed),
    )


def _group_figure(one: NetworkGroups) -> Figure:
    names = list(one.groups["group"])
    left_out = len(names) - MAX_GROUPS
    more = f" The first {MAX_GROUPS} groups; the table has all." if left_out > 0 else ""
    return Figure(
        key=slug(f"groups-{one.network}"),
        title=_group_sentence(one) or Said("The groups of {network}.", network=one.network),
        caption=(
            f"The groups of {one.network} by step: the norm of the gradient that the optimizer "
            "received, and the norm of the update over that of the weights. Medians over "
            f"neighbouring steps and seeds.{more}"
        ),
        alt=f"Lines by step for the groups {listing([str(name) for name in names[:MAX_GROUPS]])}.",
        draw=partial(draw_groups, one),
    )


def _clipping_table(shown: list[NetworkGroups]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "network": one.network,
                "steps": one.steps,
                "steps with a changed gradient": one.changed,
                "received / left, median": one.factor,
                "smallest": one.smallest,
            }
            for one in shown
        ]
    )


def _group_table(grouped: list[NetworkGroups]) -> pd.DataFrame:
    names = {
        "group": "group",
        "parameters": "parameters",
        "layers": "layers",
        "gradient_norm": "gradient norm",
        "share": "share of the square",
        "clipping_factor": "received / left",
        "update_to_weight": "update / weight",
        "nonfinite": "nonfinite values",
    }
    frames = [
        one.groups[list(names)].rename(columns=names).assign(network=one.network) for one in grouped
    ]
    return pd.concat(frames)[["network", *names.values()]].reset_index(drop=True)


ANALYSIS = Analysis(
    key="groups",
    title="Clipping and groups",
    question="What reaches the optimizer of the gradient that backward left, in all and by group?",
    run=run,
    background=(
        "Clipping shortens gradients that are longer than a bound, after backpropagation and "
        "before the optimizer makes its update."
    ),
    order=125,
)
