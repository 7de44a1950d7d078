"""Whether the loss of one run falls at all."""

import math
from dataclasses import dataclass

import numpy as np

from analyses.health.condition import Answer, Bounds, Condition, NotAsked
from analyses.health.conditions.losses.climbing import SIGN, Climb
from analyses.health.conditions.steps import climb_before
from analyses.health.readings import OVERLOOKED, Reading, held_since, median_interval, window_size
from analyses.reading.model_tensors import ends_in_softmax
from analyses.reading.options import has_moving_objective
from analyses.result import Verdict
from analyses.statistics import Array
from analyses.statistics.verdicts import verdict_above
from analyses.wording.numbers import number
from analyses.wording.phrases import plural
from gradflow.conditions import bounds
from gradflow.conditions.bounds import NEAR_CHANCE, RISEN
from gradflow.runs.reading.run import Run

# Medians of fewer steps have intervals so wide that most sound trainings would be left open.
MIN_STEPS = 40
AT_CHANCE = 0.995  # of log(classes): what has learnt anything lies below
CLIMBED = 1.5  # times log(classes), from a loss that begins near it
_FIRST_LOSSES, _ABOUT_GUESSING = 3, 1 / 3


@dataclass(frozen=True)
class LossBounds(Bounds):
    """Bounds of the condition of this module.

    Fields:
        flat: for the loss of the last steps over that of the first.
    """

    flat: float = bounds.FLAT


def not_learning_answer(run: Run, flat: float, max_steps: int) -> Answer:
    """Whether the loss does not fall, beyond its noise; not asked if fewer than 40 steps have one.

    Nor is it asked where the loss was declared to move (`Tracer(objective="moving")`).

    The median loss of the last recorded steps over that of the first ones is compared with `flat`,
    or over that of as many steps before them, if it fell to that of guessing and stays there. Its
    interval is that of both medians. Losses not above 0 have no ratio: it is open then, except for
    a fall from above 0 to below. It counts only if it has risen fivefold, or is that of
    guessing, log(classes): elsewhere a training that had converged before, or one whose objective
    moves, looks the same.
    """
    if has_moving_objective(run):
        reason = 'the loss need not fall (objective="moving")'
        return NotAsked("not-learning", reason, applies=False)
    known = run.steps[np.isfinite(run.steps["loss"].to_numpy(dtype=float))]
    losses, steps = known["loss"].to_numpy(dtype=float), known["step"].to_numpy()
    if len(losses) < MIN_STEPS:
        return NotAsked("not-learning", _too_few(len(losses)))
    size = window_size(len(losses), max_steps)
    first, last = losses[:size], losses[-size:]
    before, now = float(np.median(first)), float(np.median(last))
    ratio, low, high = _ratio(before, now, median_interval(first), median_interval(last))
    verdict = verdict_above(low, high, flat) if ratio is not None else _without_ratio(first, last)
    guessing = _loss_of_guessing(run, now)
    if verdict is Verdict.INCONCLUSIVE and _stays_at_guessing(guessing, median_interval(last)[0]):
        verdict = Verdict.SUPPORTED
    against = "first"
    if guessing is not None and now > AT_CHANCE * math.log(guessing):
        # Confident first outputs cost more than guessing: it may fall that far, and no further.
        middle = losses[-2 * size : -size]
        chance = _ratio(
            float(np.median(middle)), now, median_interval(middle), median_interval(last)
        )
        if verdict_above(*chance[1:], flat) is Verdict.SUPPORTED is not verdict:
            verdict, against, (ratio, low, high) = Verdict.SUPPORTED, "ones before", chance
    note, cause, otherwise, next_step, since = "", "", "", "", None
    if ratio is None:
        went = f"from {number(before)} to {number(now)}"
        note = f"The loss goes {went}: a loss that is not above 0 has no ratio to compare."
    if verdict is Verdict.SUPPORTED:
        if guessing is not None:
            cause = (
                f"It stays at {number(now)}, that of guessing among {guessing} classes "
                f"(log {guessing} = {number(math.log(guessing))})."
            )
            otherwise = _WHY
            if ends_in_softmax(run):
                cause += f" {_SOFTMAX}"
                otherwise = _WHY_ELSE
            guesses = np.abs(losses / math.log(guessing) - 1) < NEAR_CHANCE
            since = held_since(guesses, steps, OVERLOOKED)
        elif (risen := _rise(run, losses, ratio, now, int(steps[-1]))) is not None:
            cause, next_step = risen.cause, risen.next_step
            since = held_since(losses > risen.level, steps, OVERLOOKED)
        elif ratio is not None and ratio > 1 / flat:
            verdict = Verdict.INCONCLUSIVE
            note = (
                f"It rises, from {number(before)} to {number(now)}: so it does at too large a "
                "learning rate, but also against an adversary that learns, or for another "
                "objective that moves."
            )
        else:
            verdict = Verdict.INCONCLUSIVE
            note = (
                f"It stays at {number(now)}: a training that had converged before looks like this."
            )
    return Reading(
        "not-learning",
        verdict,
        f"median loss of the last steps over that of the {against}",
        "",
        ratio,
        low,
        high,
        None,
        False,
        flat,
        f"above {number(flat)}",
        f"medians of {size} steps {'at either end' if against == 'first' else 'each at the end'} "
        f"of {len(losses)} recorded ones, interval by order statistics of both",
        note,
        cause=cause,
        next_step=_ANOTHER_MEASURE if note and verdict is Verdict.INCONCLUSIVE else next_step,
        since=since,
        otherwise=otherwise,
    )


_ANOTHER_MEASURE = (
    "Look at another measure of progress, such as the accuracy on other data. If the objective "
    'moves, as against an adversary, say so: Tracer(..., objective="moving"). Then the loss is not '
    "asked."
)
_SOFTMAX = (
    "The network ends in a softmax: its outputs sum to 1 over the classes. Cross-entropy applies a "
    "softmax itself, so leave that of the network out."
)
_WHY_ELSE = (
    "If the loss takes probabilities, as the logarithm of these and NLLLoss do, then either the "
    "labels do not go with the inputs, or the updates are far too small or too large."
)
_WHY = (
    "Either the labels do not go with the inputs, or the inputs tell nothing, or the network ends "
    "in a softmax before the cross-entropy, or the updates are far too small or too large."
)


def _too_few(steps: int) -> str:
    if not steps:
        return "no loss was logged"
    return f"{plural(steps, 'recorded step')} have a loss, and {MIN_STEPS} are needed"


def _ratio(
    before: float,
    now: float,
    first: tuple[float | None, float | None],
    last: tuple[float | None, float | None],
) -> tuple[float | None, float | None, float | None]:
    """now / before with its ends; None for losses that are not above 0, which have no ratio."""
    ends = (*first, *last)
    if before <= 0 or now <= 0 or any(end is not None and end <= 0 for end in ends):
        return None, None, None
    if any(end is None for end in ends):
        return now / before, None, None
    first_low, first_high, last_low, last_high = (float(end) for end in ends if end is not None)
    return now / before, last_low / first_high, last_high / first_low


def _without_ratio(first: Array, last: Array) -> Verdict:
    """Contradicted if the loss falls from above 0 to 0 or below, beyond its noise; else open.

    One that is below 0 from the start may have the wrong sign.
    """
    (low, _), (_, high) = median_interval(first), median_interval(last)
    falls = low is not None and high is not None and high <= 0 < low
    return Verdict.CONTRADICTED if falls else Verdict.INCONCLUSIVE


def _loss_of_guessing(run: Run, loss: float) -> int | None:
    """The number of the last layer's outputs, if `loss` is that of guessing among as many."""
    classes = _outputs_of_last_layer(run)
    near = classes > 1 and abs(loss / math.log(classes) - 1) < NEAR_CHANCE
    return classes if near else None


def _outputs_of_last_layer(run: Run) -> int:
    """How many outputs the last layer with weights has; 0 if that is not known."""
    layers = run.layers[run.layers["role"].isin(["linear", "convolution"])]
    if not len(layers):
        return 0
    last = layers.sort_values("depth", kind="stable").iloc[-1]
    parts = str(last["shape"]).split("x")
    size = parts[0] if last["role"] == "convolution" else parts[-1]  # the others are places
    return int(size) if size.isdigit() else 0


@dataclass(frozen=True)
class _Rise:
    """A loss that rises: why, what to do, and the loss from which it has risen."""

    cause: str
    next_step: str
    level: float


def _rise(run: Run, losses: Array, ratio: float | None, now: float, until: int) -> _Rise | None:
    """Why the loss rises; None if it does not, or so little that objectives that move do so too."""
    if ratio is not None and ratio > RISEN:
        climb = climb_before(run, until)
        cause = f"It rises, from {number(now / ratio)} to {number(now)}."
        return _Rise(
            f"{cause} {climb.why}" if climb else cause, SIGN if climb else "", RISEN * now / ratio
        )
    climb = _climbs_from_guessing(run, losses, now, until)
    if climb is None:
        return None
    begins = number(climb.before)
    cause = f"It rises from about that of guessing, {begins}, to {number(now)}. {climb.why}"
    return _Rise(cause, SIGN, CLIMBED * math.log(_outputs_of_last_layer(run)))


def _climbs_from_guessing(run: Run, losses: Array, now: float, until: int) -> Climb | None:
    """The climb of a classifier's loss that begins near that of guessing and goes far above it.

    Who knows nothing loses log(classes); no classifier whose updates go down the loss gets there.
    The first losses may lie a third off, since initial outputs are not all 0.
    """
    guessing = math.log(classes) if (classes := _outputs_of_last_layer(run)) > 1 else 0.0
    begins = float(np.median(losses[:_FIRST_LOSSES]))
    if not guessing or abs(begins / guessing - 1) > _ABOUT_GUESSING or now < CLIMBED * guessing:
        return None
    return climb_before(run, until)


def _stays_at_guessing(classes: int | None, low: float | None) -> bool:
    """Whether the lower end of the last losses is that of guessing, whatever they were at first."""
    return classes is not None and low is not None and low > AT_CHANCE * math.log(classes)


def _read(run: Run, bounds: LossBounds) -> list[Answer]:
    return [not_learning_answer(run, bounds.flat, bounds.last_steps)]


NOT_LEARNING = Condition(
    key="not-learning",
    hypothesis="The loss[ of {}] does not fall.",
    holds="the loss does not fall",
    fails="the loss falls",
    unknown="it cannot be told whether the loss falls",
    contradicted_by="A loss of the last steps whose interval lies below the bound.",
    next_step=(
        "Train on a single batch: a sound network learns it by heart. If this one does not, check "
        "loss, labels and learning rate."
    ),
    to_ask="Log the loss of each step, of 40 recorded ones at least: tracer.log(loss=loss).",
    source="Zhang et al. 2021, AUTOTRAINER (slow convergence, oscillating loss)",
    shows_late=True,
    needed=False,
    read=_read,
    bound="flat",
)
