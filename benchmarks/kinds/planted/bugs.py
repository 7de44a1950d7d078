"""Ten realistic bugs for each script: what slips into the code of a training that works."""

import random
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from training import Training

from planted.fault import ADRIFT, FLAT, Fault, is_flat
from planted.numbers import NUMBERS
from planted.truth import Truth
from planted.wiring import WIRING, has_modes

EACH = 10  # bugs of each script


def zeroed_before_step(training: Training, _: random.Random) -> Truth:
    """zero_grad stands between backward and step."""
    training.zero_before_step = True
    return Truth(("clipped", "not-updated", "stalled"), FLAT | {"vanishing"}, "zeroed")


def stepped_each_batch(training: Training, draw: random.Random) -> Truth:
    """A schedule for epochs is stepped with every batch: a fraction of the rate in each step."""
    factor, steps = draw.choice([0.1, 0.3]), training.steps
    training.schedule = lambda t: factor ** (t * (steps - 1))
    return Truth(("stalled",), FLAT | {"lost-to-rounding"}, "small-rate")


def weights_of_zero(training: Training, _: random.Random) -> Truth:
    """An initialization sets all weights to zero, not only biases."""
    with torch.no_grad():
        for module in training.model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.weight.zero_()
    kinds = ("not-learning", "collapsed", "vanishing", "stalled", "dead", "disconnected")
    return Truth(kinds, ADRIFT, "initialization")


def huge_decay(training: Training, draw: random.Random) -> Truth:
    """A weight decay of ten or more, which pulls all weights to zero."""
    training.rule, training.decay = "AdamW", draw.choice([30.0, 100.0])
    kinds = ("not-learning", "collapsed", "vanishing", "stalled", "dead", "overshooting")
    return Truth(kinds, ADRIFT, "")


def divided_by_zero(training: Training, _: random.Random) -> Truth:
    """Each batch is standardized by column, and a column of it does not vary."""

    def transform(_: int, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        given = inputs.clone()
        given.flatten(1)[:, 0] = 0.0
        return (given - given.mean(0)) / given.std(0), targets

    training.transforms.append(transform)
    return Truth(("non-finite", "inputs"), ADRIFT | {"inputs", "non-finite"}, "not-finite")


def one_batch(training: Training, _: random.Random) -> Truth:
    """The loader is made anew in each step, and gives the first batch again."""
    plain = training.batch
    training.batch = lambda step: plain(step if step >= 100_000 else 0)
    return Truth(("inputs", "overfitting"), frozenset({"overfitting", "inputs"}), "repeated")


def _has_floats(training: Training) -> bool:
    return training.batch(0)[0].is_floating_point()


def _is_classified(training: Training) -> bool:
    return training.classes > 1


def _any(_: Training) -> bool:
    return True


def _has_trained_head(training: Training) -> bool:
    head = training.model.get_submodule(training.head)
    return any(one.requires_grad for one in head.parameters())


def _is_dense(training: Training) -> bool:
    return not any(getattr(one, "sparse", False) for one in training.model.modules())


_PLANTED = {one.key: one for one in (*WIRING, *NUMBERS)}
Applies = Callable[[Training], bool]

# The first script of a kind has the first ten that apply to it, the second the last ten.
_LIST: tuple[tuple[Fault, Applies], ...] = (
    (_PLANTED["zero_grad forgotten"], _any),
    (_PLANTED["detached before the head"], _has_trained_head),
    (_PLANTED["parameters in no optimizer"], _any),
    (_PLANTED["learning rate far too large"], _any),
    (Fault("zeroed before the step", (), zeroed_before_step), _any),
    (_PLANTED["kept in evaluation mode"], has_modes),
    (Fault("divided by zero", (), divided_by_zero), _has_floats),
    (_PLANTED["labels shuffled"], _is_classified),
    (Fault("schedule stepped with each batch", (), stepped_each_batch), _any),
    (_PLANTED["ascent"], _any),
    (Fault("one batch again and again", (), one_batch), _any),
    (_PLANTED["clipped to a millionth"], _any),
    (Fault("weights of zero", (), weights_of_zero, is_flat), _any),
    (_PLANTED["learning rate of a billionth"], _any),
    (Fault("huge weight decay", (), huge_decay, is_flat), _is_dense),
)
BUGS = {f"bug: {one.key}": replace(one, key=f"bug: {one.key}", kinds=()) for one, _ in _LIST}


def bugs_of(training: Training, index: int) -> list[str]:
    """The bugs that the script `index` of a kind has, one at a time, by their keys in `BUGS`."""
    found = [f"bug: {one.key}" for one, applies in _LIST if applies(training)]
    return found[:EACH] if index % 2 == 0 else found[-EACH:]
