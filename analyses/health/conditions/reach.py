"""Which trained parameters get no gradient, or are never updated, in one run."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from analyses.health.condition import Answer, Bounds, Condition, NotAsked
from analyses.health.conditions.detachment import cut_off_since, why_open
from analyses.health.readings import MIN_WINDOW, Reading
from analyses.reading.once import once_per_run
from analyses.reading.options import turns_of_updates
from analyses.result import Verdict
from analyses.wording.phrases import listing, plural
from analyses.wording.translatable import Joined, Numeral, Said, message
from gradflow.runs.format.update_tables import NO_OPTIMIZER
from gradflow.runs.reading.run import Run

_NEVER_RAN = "did not run"
_ON_PURPOSE = (_NEVER_RAN, "ran without gradients", "ran in evaluation mode")
_NAMED = 6  # names in a sentence
_NOT_CHOSEN = (
    "Others of the same list ran in some steps only, as experts do that a router chooses: these "
    "may not have been chosen yet, or never are."
)
_COUNT = "Count how often each of them is chosen: a router may choose the same few always."
_MAY_BE_RAISED = "The training has not ended: the learning rate may still be raised."


@once_per_run
def parameter_extremes(run: Run) -> pd.DataFrame:
    """What happened to each trained parameter at most, over all recorded steps.

    One row per parameter, in the order of the table. Columns: `gradient`, the largest norm of its
    gradient, missing if it never had one; `update`, the largest norm of an update; `rate`, the
    largest learning rate; `optimizer`; and `steps`, the number of recorded steps.
    """
    rows = run.parameters
    both = rows[["backward_gradient_norm", "gradient_norm"]].max(axis=1)
    known = pd.DataFrame(
        {
            "parameter": rows["parameter"],
            "gradient": both,
            "update": rows["update_norm"],
            "rate": rows["learning_rate"],
            "optimizer": rows["optimizer"],
        }
    )
    grouped = known.groupby("parameter", sort=False)
    return (
        grouped[["gradient", "update", "rate"]]
        .max()
        .assign(optimizer=grouped["optimizer"].last(), steps=grouped.size())
    )


def unreached_answers(run: Run) -> list[Answer]:
    """Whether trained parameters belong to layers that never run, or get no gradient if they do.

    A parameter counts if it had no gradient in any recorded step, not even one of exactly zero, or
    has none from some step on (`detachment`), and some optimizer has it, if the tracer was given
    any. With fewer than six recorded steps the
    verdict is open: an expert may not have been chosen yet. So it is for layers that never ran if
    each is one of several of which others ran in some steps only.
    Not asked if no parameter ever had a gradient, for then gradients could not be read.
    """
    found = parameter_extremes(run)
    if not found["gradient"].notna().any():
        reason = "no parameter had a gradient in any recorded step"
        return [NotAsked(condition, reason) for condition in ("unused", "disconnected")]
    # What no optimizer has either is not to be trained: a teacher that follows its student as a
    # running mean, the target network of Q-learning, a backbone that runs under no_grad.
    without = found[found["gradient"].isna() & (found["optimizer"] != NO_OPTIMIZER)]
    reasons = _why_not_observed(run)
    used = _used_by_attention(run)
    idle = [
        name
        for name in without.index
        if reasons.get(_module(name), "").startswith(_NEVER_RAN)
        and _module(name).rpartition(".")[0] not in used
    ]
    unreached = [name for name in without.index if name not in set(idle)]
    unused = _count_reading(
        run, "unused", idle, found, message("number of trained parameters whose layer never ran")
    )
    if unused.verdict is Verdict.SUPPORTED and _chosen_by_input(idle, run):
        unused = replace(unused, verdict=Verdict.INCONCLUSIVE, note=_NOT_CHOSEN, next_step=_COUNT)
    disconnected = _count_reading(
        run,
        "disconnected",
        unreached,
        found,
        message("number of trained parameters that no gradient reaches"),
        _why_unreached(unreached, reasons, run),
    )
    if unreached and not _has_finite_gradient(run):
        return [unused, NotAsked("disconnected", "no recorded step has finite gradients")]
    return [unused, disconnected if unreached else _cut_off(run, found) or disconnected]


def _has_finite_gradient(run: Run) -> bool:
    """Whether some step has; in others a gradient that is not a number looks like none."""
    if "first_nonfinite" not in run.description:
        return True
    return bool(np.isfinite(run.steps["gradient_norm"].to_numpy(dtype=float)).any())


def _cut_off(run: Run, found: pd.DataFrame) -> Reading | None:
    """The reading if no gradient reaches some parameters from a step on; None if that is not so."""
    names, since = cut_off_since(run)
    if since is None:
        return None
    run_forward = "run" if len(set(map(_module, names))) > 1 else "runs"
    cause = (
        f"Before step {since} a gradient reached them. From there on {named(names, run)} still "
        f"{run_forward} forward, but what comes out is detached, or not used by the loss."
    )
    one = _count_reading(
        run,
        "disconnected",
        names,
        found,
        message("number of trained parameters that no gradient reaches"),
        cause,
    )
    one = replace(one, since=since, held_early=False)
    note = why_open(run, names, since)
    return replace(one, verdict=Verdict.INCONCLUSIVE, note=note) if note else one


def not_updated_answer(run: Run) -> Answer:
    """Whether parameters have gradients, but no optimizer or a learning rate of 0.

    Not asked if the tracer was given no optimizer.
    """
    found = parameter_extremes(run)
    known = found[found["optimizer"].notna() & found["update"].notna()]
    if known.empty:
        return NotAsked("not-updated", "no optimizer was given to the tracer")
    still = known[(known["gradient"] > 0) & (known["update"] == 0)]
    homeless = list(still.index[still["optimizer"] == NO_OPTIMIZER])
    unmoved = list(still.index[still["rate"] == 0])
    causes = []
    if homeless:
        causes.append(
            Said(
                "No optimizer given to the tracer has {names}: pass their parameters to it, or set "
                "requires_grad=False if they are not to be trained.",
                names=named(homeless, run),
            )
        )
    if unmoved:
        causes.append(
            Said(
                "The learning rate of {names} is 0 in every recorded step: look at the schedule "
                "and the parameter groups.",
                names=named(unmoved, run),
            )
        )
    reading = _count_reading(
        run,
        "not-updated",
        homeless + unmoved,
        found,
        message("number of trained parameters with a gradient that are never updated"),
        Joined(causes),
    )
    unknown = int(((found["gradient"] > 0) & found["optimizer"].notna()).sum()) - int(
        (known["gradient"] > 0).sum()
    )
    if reading.verdict is Verdict.CONTRADICTED and unknown and turns_of_updates(run) > 1:
        note = f"The updates of {plural(unknown, 'trained parameter')} have had no turn yet."
        return replace(reading, verdict=Verdict.INCONCLUSIVE, note=note)
    # Groups of parameters join in later in gradual unfreezing: only the end tells that none did.
    waits = unmoved and not homeless and run.description.get("status") == "running"
    if waits and reading.verdict is Verdict.SUPPORTED:
        return replace(reading, verdict=Verdict.INCONCLUSIVE, note=_MAY_BE_RAISED)
    return reading


def unrecorded_layers(run: Run) -> dict[str, str]:
    """Why nothing was recorded of a layer though it ran in training, by its name.

    Not meant are layers that never ran, ran without gradients or in evaluation mode, which is done
    on purpose, and those of whose parameters something is known.
    """
    extremes = parameter_extremes(run)
    known = extremes.index[extremes["gradient"].notna() | (extremes["update"] > 0)]
    told = set(map(_module, known))
    return {
        name: reason
        for name, reason in _why_not_observed(run).items()
        if not reason.startswith(_ON_PURPOSE) and name not in told
    }


def named(parameters: Sequence[str], run: Run) -> str:
    """The layers of `parameters` in order of execution: "enc.0 to enc.6", or one by one.

    The first and last name stand for all of them if no other layer with parameters lies between.
    If some of them never ran, they are in the order of the table `parameters`.
    """
    modules = list(dict.fromkeys(map(_module, parameters)))
    order = list(dict.fromkeys(_module(one) for one in run.parameters["parameter"]))
    ran = [name for name in dict.fromkeys(run.layers["layer"]) if name in set(order)]
    order = ran if set(modules) <= set(ran) else order
    modules.sort(key=order.index)
    first = order.index(modules[0])
    if len(modules) > 2 and order[first : first + len(modules)] == modules:
        return Said("{first} to {last}", first=modules[0], last=modules[-1])
    return listing(modules, _NAMED)


def _count_reading(
    run: Run,
    condition: str,
    names: Sequence[str],
    found: pd.DataFrame,
    quantity: str,
    cause: str = "",
) -> Reading:
    steps = int(found["steps"].max())
    enough = steps >= MIN_WINDOW
    ill = Verdict.SUPPORTED if enough else Verdict.INCONCLUSIVE
    place = named(names, run) if names else ""
    return Reading(
        condition,
        ill if names else Verdict.CONTRADICTED,
        quantity,
        place,
        float(len(names)),
        None,
        None,
        None,
        bool(names),
        0.0,
        "any such parameter",
        f"count over {plural(steps, 'recorded step')}; no interval: nothing was sampled",
        "" if enough or not names else f"{MIN_WINDOW} recorded steps are needed.",
        Said(
            "{count} of {parameters}, those of {place}" if names else "{count} of {parameters}",
            count=Numeral(f"{len(names)}"),
            parameters=plural(len(found), "trained parameter"),
            place=place,
        ),
        cause,
        since=int(run.parameters["step"].min()) if names else None,
    )


def _chosen_by_input(parameters: Sequence[str], run: Run) -> bool:
    """Whether each belongs to one of several like branches of which others ran in some steps only.

    Branches are alike if their names are alike but for one number, as in a list of experts.
    """
    if not len(run.activations):
        return False
    calls = run.activations.groupby("layer").size()
    at_times = {str(name) for name in calls.index[calls < calls.max()]}
    chosen = {one for name in at_times for one in _without_one_number(name)}
    return all(
        any(one in chosen for one in _without_one_number(_module(name))) for name in parameters
    )


def _without_one_number(name: str) -> list[str]:
    """`name` with a star in place of one of its parts that are numbers, for each of them."""
    parts = name.split(".")
    return [
        ".".join([*parts[:place], "*", *parts[place + 1 :]])
        for place, part in enumerate(parts)
        if part.isdecimal()
    ]


def _why_not_observed(run: Run) -> dict[str, str]:
    """Why the output of a layer was never recorded, by layer; what is no list of names is not read.

    `run.json` may come from anybody.
    """
    by_reason = run.description.get("not_observed")
    if not isinstance(by_reason, dict):
        return {}
    lists = {reason: names for reason, names in by_reason.items() if isinstance(names, list)}
    return {
        name: reason for reason, names in lists.items() for name in names if isinstance(name, str)
    }


def _why_unreached(parameters: Sequence[str], reasons: dict[str, str], run: Run) -> str:
    modules = list(dict.fromkeys(map(_module, parameters)))
    said = [f"{name} {reasons[name]}." for name in modules if name in reasons][:_NAMED]
    ran = [one for one in parameters if _module(one) in set(run.layers["layer"])]
    if ran:
        several = len(dict.fromkeys(map(_module, ran))) > 1
        said.append(
            f"{named(ran, run)} {'run' if several else 'runs'} forward: what comes out is "
            "detached, computed under torch.no_grad(), or not used by the loss."
        )
    return " ".join(said)


def _used_by_attention(run: Run) -> set[str]:
    """The attention layers that ran: torch's use the weights of what is in them without a call."""
    return set(run.layers.loc[run.layers["role"] == "attention", "layer"])


def _module(parameter: str) -> str:
    return parameter.rpartition(".")[0] or parameter


def _read_unreached(run: Run, _: Bounds) -> list[Answer]:
    return unreached_answers(run)


def _read_not_updated(run: Run, _: Bounds) -> list[Answer]:
    return [not_updated_answer(run)]


UNUSED = Condition(
    key="unused",
    hypothesis="Some layers with trained parameters[ of {}] never run.",
    holds="some layers with trained parameters never run",
    fails="every layer with trained parameters runs",
    unknown="it cannot be told whether some layers never run",
    contradicted_by="A gradient of every trained parameter, or an output of its layer.",
    next_step="Call these layers in forward, or set requires_grad=False and leave them out.",
    source="PyTorch documentation, DistributedDataParallel (unused parameters)",
    read=_read_unreached,
    method=(
        "Disconnected, unused and not updated: trained parameters without a gradient, or without "
        "an update, in every recorded step; disconnected also: none from some step on, in each."
    ),
    spoils=False,
    only_if_present=True,
)

DISCONNECTED = Condition(
    key="disconnected",
    hypothesis="No gradient reaches some trained parameters[ of {}].",
    holds="no gradient reaches some trained parameters",
    fails="a gradient reaches every trained parameter whose layer runs",
    unknown="it cannot be told whether a gradient reaches every trained parameter",
    contradicted_by="A gradient of every trained parameter, to the last recorded steps.",
    next_step=(
        "Look for detach(), torch.no_grad(), .data, .item() or a numpy array between the last of "
        "these layers and the loss; set requires_grad=False if they are not to be trained."
    ),
    source="PyTorch documentation, Autograd mechanics (tensors without history)",
    leads_to=("not-learning",),
    read=_read_unreached,
    only_if_present=True,
)

NOT_UPDATED = Condition(
    key="not-updated",
    hypothesis="Some trained parameters[ of {}] have gradients but are never updated.",
    holds="some trained parameters have gradients but are never updated",
    fails="every trained parameter with a gradient is updated",
    unknown="it cannot be told whether every parameter with a gradient is updated",
    contradicted_by="An update of every parameter that has a gradient.",
    next_step=(
        "Give the parameters that are never updated to an optimizer, with a learning rate above 0."
    ),
    to_ask="Give the tracer the optimizer: Tracer(model, folder, optimizer=optimizer).",
    source="PyTorch documentation, torch.optim (parameter groups)",
    leads_to=("not-learning",),
    read=_read_not_updated,
    only_if_present=True,
)
