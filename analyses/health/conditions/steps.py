"""Steps that are too large, and gradients that are carried over from step to step."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.health.condition import Answer, Bounds, Condition, NotAsked
from analyses.health.conditions.losses.climbing import Climb, climb_of
from analyses.health.conditions.updates import whole_updates
from analyses.health.readings import (
    MIN_WINDOW,
    OVERLOOKED,
    Reading,
    held_since,
    window_size,
)
from analyses.reading.options import has_moving_objective, turns_of_updates
from analyses.result import Verdict
from analyses.wording.numbers import number, percent, share_bound
from analyses.wording.phrases import listing, plural
from analyses.wording.translatable import Numeral, Said, message
from gradflow.conditions import bounds
from gradflow.conditions.overshooting import (
    LARGE_STEPS,
    WITHIN,
    first_large,
    suffers,
)
from gradflow.runs.reading.run import Run

# That a pass begins may show at the first gradient that arrives, which is there by then.
_FEWEST_CARRIED = 2
_AS_TIMES = 10.0  # a ratio that is told as a factor, not as a percentage


@dataclass(frozen=True)
class StepBounds(Bounds):
    """Bounds of the conditions of this module.

    Fields:
        overshooting: for the norm of a step's whole update over that of all weights.
        accumulating: for the share of steps that begin with gradients of the step before. Gradient
            accumulation by hand, in which every second step is one of the loop, gives 0.5.
    """

    overshooting: float = bounds.OVERSHOOTING
    accumulating: float = 0.9


def overshooting_answer(run: Run, bound: float, max_steps: int) -> Answer:
    """Whether steps are so large that the loss does not fall; not asked without updates.

    Ill are three steps with updates above `bound` among ten recorded ones, if the loss has not
    fallen at the end, or is not a number. Without a loss, the verdict is open then. A loss that was
    climbed before does not count (`losses.climbing`): its steps grow as it does.
    """
    ratios = whole_updates(run)
    known = ratios[np.isfinite(ratios.to_numpy())]
    if not len(known):
        return NotAsked("overshooting", "no update of a weight was recorded")
    values, steps = known.to_numpy(), known.index.to_numpy()
    since = first_large(values > bound, steps)
    highest = np.sort(values)[-LARGE_STEPS] if len(values) >= LARGE_STEPS else values.max()
    loss = _LossPath.of(run, since, max_steps)
    verdict, note, next_step = Verdict.CONTRADICTED, "", ""
    if since is not None:
        climb = None if has_moving_objective(run) else climb_of(run, since)
        if climb is not None and loss.suffers:
            note = climb.clause
        elif loss.suffers is False and has_moving_objective(run):
            verdict = Verdict.INCONCLUSIVE
            note = "The loss falls all the same, but its objective moves: that may be why."
        elif loss.suffers is not None:
            verdict = Verdict.SUPPORTED if loss.suffers else Verdict.CONTRADICTED
        else:
            verdict = Verdict.INCONCLUSIVE
            note = "Whether the loss falls all the same was not recorded."
            next_step = "Give the loss to the tracer: tracer.log(loss=loss)."
    ill = verdict is Verdict.SUPPORTED
    count = int((values > bound).sum())
    return Reading(
        "overshooting",
        verdict,
        message("third largest update of all weights over their norm")
        if turns_of_updates(run) == 1
        else message("third largest update of all weights, each in its turn, over their norm"),
        "",
        float(highest),
        None,
        None,
        None,
        False,
        bound,
        f"above {number(bound)} in {LARGE_STEPS} of {WITHIN} recorded steps, and a loss that "
        "does not fall (rule of thumb for health: about 0.001, CS231n)",
        f"of {plural(len(values), 'recorded step')}; no interval: nothing was sampled",
        note,
        said=Said(
            "a step changes the weights by up to {largest} their norm, and by more than {bound} in "
            "{steps}",
            largest=_of_norm(float(values.max())),
            bound=share_bound(bound),
            steps=plural(count, "recorded step"),
        )
        if ill
        else "",
        cause=Said(
            "They are too large{rates}: {loss}.",
            rates=_rates(run, since),
            loss=message(loss.clause),
        )
        if ill
        else "",
        next_step=next_step,
        since=since if ill else None,
    )


def climb_before(run: Run, until: int) -> Climb | None:
    """How the loss was climbed up to the step `until`, or to the first of several large steps.

    What steps that are too large have left may look like a climb from there on.
    """
    if not len(run.layers) or not len(run.parameters):
        return None
    ratios = whole_updates(run)
    known = ratios[np.isfinite(ratios.to_numpy())]
    since = first_large(known.to_numpy() > StepBounds.overshooting, known.index.to_numpy())
    return climb_of(run, until if since is None else min(until, since))


def _of_norm(ratio: float) -> str:
    """ "26.2 % of", or "3,010 times" for what no percentage is read of."""
    if ratio < _AS_TIMES:
        return Said("{share} of", share=percent(ratio))
    return Said("{factor} times", factor=number(ratio))


@dataclass(frozen=True)
class _LossPath:
    """What the loss did after a step.

    Fields:
        suffers: whether it has not fallen since, or leapt and not fallen much; None if that was
            not recorded.
        clause: what it did, in words.
    """

    suffers: bool | None
    clause: str = ""

    @classmethod
    def of(cls, run: Run, since: int | None, max_steps: int) -> "_LossPath":
        losses = run.steps["loss"].to_numpy(dtype=float)
        steps = run.steps["step"].to_numpy()
        if since is None or not np.isfinite(losses).any():
            return cls(None)
        # The loss of a step is computed before its update.
        early, after = losses[steps <= since], losses[steps > since]
        early, size = early[np.isfinite(early)], window_size(len(losses), max_steps)
        last = losses[-size:]
        if not len(early) or not len(after):
            return cls(None)
        if np.isfinite(last).mean() < 0.5:
            gone = np.isfinite(after).argmin()
            step = Numeral(f"{int(steps[steps > since][gone])}")
            return cls(True, Said("the loss is no longer a number from step {step} on", step=step))
        before, now = (
            float(np.median(one)) for one in (early[-MIN_WINDOW:], last[np.isfinite(last)])
        )
        highest = float(np.max(after[np.isfinite(after)]))
        clause = Said(
            "the loss ends at {now}, from {before} before"
            if highest <= before
            else "the loss rises to {highest}, and ends at {now}, from {before} before",
            highest=number(highest),
            now=number(now),
            before=number(before),
        )
        return cls(suffers(before, now, highest), clause)


def _rates(run: Run, since: int | None) -> str:
    """The learning rates of the groups of parameters from a step on, in words."""
    rows = run.parameters[run.parameters["step"] >= (since or 0)]
    rates = rows.groupby(["optimizer", "group"], sort=False)["learning_rate"].max().dropna()
    if not len(rates):
        return ""
    if len(rates) == 1 or rates.nunique() == 1:
        return Said(" at a learning rate of {rate}", rate=number(float(rates.iloc[0])))
    said = [
        Said(
            "{rate} (group {group} of {optimizer})",
            rate=number(float(rate)),
            group=f"{int(group)}",
            optimizer=str(name),
        )
        for (name, group), rate in rates.items()
    ]
    return Said(" at learning rates of {rates}", rates=listing(said))


def accumulating_answer(run: Run, bound: float, max_steps: int) -> Answer:
    """Whether an optimizer gets gradients of earlier steps too; not asked if that was not seen.

    Of the steps in which an optimizer has updated its parameters, those count that began, in each
    of their backward passes, with gradients other than zero: of at least two of the parameters that
    were looked at. Open without an optimizer: the end of a step is then what the loop says it is.
    """
    carried = _carried(run)
    if carried.empty:
        return NotAsked("accumulating", "no gradient was looked at as a backward pass began")
    shares = {}
    for name in carried.columns:
        known = carried[name].dropna()
        known = known[known.index > int(run.steps["step"].min())]
        if len(known):
            shares[str(name)] = known
    if not shares:
        return NotAsked("accumulating", "a single step was recorded")
    size = {name: window_size(len(known), max_steps) for name, known in shares.items()}
    last = {name: float(known.iloc[-size[name] :].mean()) for name, known in shares.items()}
    worst = max(last, key=lambda name: last[name])
    known, value = shares[worst], last[worst]
    ill = value > bound
    enough = len(known) >= MIN_WINDOW
    verdict = Verdict.CONTRADICTED
    note = ""
    if ill and not worst:
        verdict = Verdict.INCONCLUSIVE
        note = "The tracer has no optimizer: the passes of one step, told one by one, look alike."
    elif ill:
        verdict = Verdict.SUPPORTED if enough else Verdict.INCONCLUSIVE
        note = "" if enough else f"{MIN_WINDOW} recorded steps are needed."
    of = f" of {worst}" if len(shares) > 1 and worst else ""
    return Reading(
        "accumulating",
        verdict,
        "share of the last recorded steps that begin with gradients of the step before",
        "",
        value,
        None,
        None,
        None,
        False,
        bound,
        f"above {number(bound)}",
        f"of the last {size[worst]} of {plural(len(known), 'recorded step')}; no interval: nothing "
        "was sampled",
        note,
        said=f"{percent(value)} of the last {size[worst]} recorded steps begin with gradients{of} "
        "that the step before has left"
        if verdict is Verdict.SUPPORTED
        else "",
        cause="So each update is made from the sum of all gradients so far: zero_grad() is not "
        "called, or for other parameters, or between backward and step."
        if verdict is Verdict.SUPPORTED
        else "",
        next_step="Give the tracer the optimizer, so that it knows where a step ends."
        if note
        else "",
        since=held_since(known.to_numpy() > 0, known.index.to_numpy(), OVERLOOKED)
        if verdict is Verdict.SUPPORTED
        else None,
    )


def _carried(run: Run) -> pd.DataFrame:
    """Whether each step of an optimizer began with gradients of the one before; missing if unknown.

    One row a step, one column an optimizer, which is "" if the tracer was given none.
    """
    table = run.table("gradients_before")
    updates = run.parameters[["step", "parameter", "update_norm"]]
    if turns_of_updates(run) > 1:
        # Of a parameter whose turn it was not, those of others of its optimizer tell. If none of
        # them had its turn, it is not known whether the optimizer made a step.
        own = run.parameters.groupby(["step", "optimizer"], dropna=False)["update_norm"]
        largest = own.transform("max")
        updates = updates.assign(update_norm=updates["update_norm"].fillna(largest))
    rows = table.merge(updates, on=["step", "parameter"])
    rows = rows[rows["update_norm"] > 0]
    rows = rows.assign(
        optimizer=rows["optimizer"].astype(object).where(rows["optimizer"].notna(), ""),
        there=rows["carried_over"] > 0,
    )
    found = rows.groupby(["step", "optimizer"])["there"].agg(["sum", "size"])
    found = found[found["size"] >= _FEWEST_CARRIED]
    is_carried = (found["sum"] >= _FEWEST_CARRIED).astype(float)
    return is_carried.unstack("optimizer")


def _read_overshooting(run: Run, given: StepBounds) -> list[Answer]:
    return [overshooting_answer(run, given.overshooting, given.last_steps)]


def _read_accumulating(run: Run, given: StepBounds) -> list[Answer]:
    return [accumulating_answer(run, given.accumulating, given.last_steps)]


ACCUMULATING = Condition(
    key="accumulating",
    hypothesis="Gradients[ of {}] are carried over from step to step.",
    holds="gradients are carried over from step to step",
    fails="every step begins without gradients of the step before",
    unknown="it cannot be told whether gradients are carried over from step to step",
    contradicted_by="Steps that begin without gradients of the step before.",
    next_step="Call optimizer.zero_grad() in each step, before the first backward pass.",
    to_ask="Give the tracer the optimizer: Tracer(model, folder, optimizer=optimizer).",
    source="PyTorch documentation, torch.optim.Optimizer.zero_grad; Jiang et al. 2025, TrainCheck "
    "(missing zero_grad)",
    needed=False,
    leads_to=(
        "overshooting",
        "dead",
        "saturated",
        "exploding",
        "vanishing",
        "collapsed",
        "not-learning",
        "non-finite",
        "stalled",
    ),
    read=_read_accumulating,
    bound="accumulating",
    only_if_present=True,
)

OVERSHOOTING = Condition(
    key="overshooting",
    hypothesis="The steps[ of {}] are too large.",
    holds="the steps are too large",
    fails="the steps are not too large",
    unknown="it cannot be told whether the steps are too large",
    contradicted_by="Updates below the bound, or a loss that falls.",
    next_step="Lower the learning rate tenfold, or raise it slowly from 0 (warm-up), and check "
    "again.",
    to_ask="Give the tracer the optimizer: Tracer(model, folder, optimizer=optimizer).",
    source="CS231n, Stanford, Neural networks 3 (ratio of updates to weights); Zhang et al. 2021, "
    "AUTOTRAINER (oscillating loss)",
    needed=False,
    leads_to=(
        "dead",
        "saturated",
        "exploding",
        "vanishing",
        "collapsed",
        "stalled",
        "not-learning",
        "non-finite",
    ),
    read=_read_overshooting,
    bound="overshooting",
)
