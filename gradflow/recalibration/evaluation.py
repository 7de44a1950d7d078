"""`gradflow.evaluate_both`: what a model loses by stale batch-norm statistics.

Axes: V samples of the validation set, K classes.
"""

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from scipy.stats import norm, t
from torch import Tensor, nn

from gradflow.errors import ConfigurationError
from gradflow.hooks.wrappers import unwrapped
from gradflow.recalibration.batches import Forward, on_device_of, run_on, targets_in
from gradflow.recalibration.estimation import is_waiting_for_its_size, statistics_of
from gradflow.recalibration.in_place import put_back, recalibrate, to_re_estimate

if TYPE_CHECKING:
    import pandas as pd

Metric = Callable[[Any, Any], Tensor]

_LEVEL = 0.95


def is_correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """Whether each sample is classified correctly: outputs [N, K], targets [N]; bool [N]."""
    return outputs.argmax(1) == targets


@dataclass(frozen=True)
class BothStatistics:
    """A metric of one model with its running and with re-estimated batch-norm statistics.

    Fields:
        metric: its name.
        running, re_estimated: the mean over the validation samples with each.
        difference, low, high: re-estimated minus running, with its 95 % interval, from the
            differences of single samples.
        samples: how many there are.
        layers: pandas: how far the running statistics of each layer were off, as `recalibrate`
            returns it.
    """

    metric: str
    running: float
    re_estimated: float
    difference: float
    low: float
    high: float
    samples: int
    layers: "pd.DataFrame" = field(repr=False, compare=False)

    def __str__(self) -> str:
        both = (
            f"{self.metric} is {self.running:.4g} with running and {self.re_estimated:.4g} with "
            f"re-estimated batch-norm statistics ({self.samples} samples): "
        )
        number = f"{self.difference:+.4g} (95 % interval {self.low:+.4g} to {self.high:+.4g})"
        if self.low > 0 or self.high < 0:
            return f"{both}they change it by {number}."
        return f"{both}whether they change it can't be told, {number}."


def evaluate_both(
    model: nn.Module,
    batches: Iterable[Any],
    validation: Iterable[Any],
    metric: Metric = is_correct,
    *,
    forward: Forward = run_on,
) -> BothStatistics:
    """Say how much of a validation metric is lost to stale batch-norm statistics.

        print(gradflow.evaluate_both(model, train_loader, validation_loader))

    Evaluates a copy of the model twice: as it is, and after `recalibrate` on `batches`. The model
    itself is not changed, and tracers on it record nothing of it.

    Args:
        model: any module with batch norms; the copy takes as much memory.
        batches: training inputs, as for `recalibrate`.
        validation: batches of (inputs, targets), or mappings with targets under `labels` or
            `targets`. Each is evaluated with both statistics before the next is read.
        metric: a function of a batch's outputs and targets that returns one value per sample: [N].
            By default whether it is classified correctly, of outputs [N, K] and targets [N], whose
            mean is the accuracy. For a loss: `partial(F.cross_entropy, reduction="none")`.
        forward: runs the model on one batch, if that takes more than a call.

    The interval is that of a paired difference: for a metric that is true or false of each sample,
    Agresti & Min 2005 (Simple improved confidence intervals for comparing matched proportions);
    otherwise Student's t. It speaks of the validation samples, not of other trainings.

    Raises `ConfigurationError` if there is nothing to re-estimate (as `recalibrate`), or the
    validation batches or the metric are not what is described here.
    """
    twin = copy.deepcopy(unwrapped(model)[0])
    modules = to_re_estimate(twin)
    for name, module in modules.items():
        if is_waiting_for_its_size(module):
            raise ConfigurationError(f"{name} has no statistics yet: run the model once before")
    running = {name: statistics_of(module) for name, module in modules.items()}
    layers = recalibrate(twin, batches, forward=forward)
    re_estimated = {name: statistics_of(module) for name, module in modules.items()}
    twin.eval()
    values: tuple[list[Tensor], list[Tensor]] = ([], [])
    with torch.no_grad():
        for batch in validation:
            for found, statistics in zip(values, (running, re_estimated), strict=True):
                put_back(modules, statistics)
                found.append(_values(twin, batch, metric, forward))
    if not sum(map(len, values[0])):
        raise ConfigurationError("there is no validation sample")
    before, after = map(torch.cat, values)
    mean_before, mean_after = (float(one.double().mean()) for one in (before, after))
    difference, low, high = _paired_difference(before, after)
    return BothStatistics(
        _name_of(metric), mean_before, mean_after, difference, low, high, len(before), layers
    )


def _values(model: nn.Module, batch: Any, metric: Metric, forward: Forward) -> Tensor:
    """The metric of every sample of the batch: [N]."""
    targets = on_device_of(model, targets_in(batch))
    values = metric(forward(model, batch), targets)
    if not isinstance(values, Tensor) or values.dim() != 1:
        kind = type(values).__name__
        what = f"a tensor of shape {list(values.shape)}" if isinstance(values, Tensor) else kind
        raise ConfigurationError(
            f"the metric returned {what} for a batch: it must return one value per sample, a "
            "tensor of one axis, from which the interval is computed"
        )
    return values.detach().cpu()


def _paired_difference(before: Tensor, after: Tensor) -> tuple[float, float, float]:
    """The mean of after - before, both [V], and the ends of its 95 % interval."""
    if before.dtype == after.dtype == torch.bool:
        gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
        difference = (gained - lost) / len(before)
        return difference, *_agresti_min(gained, lost, len(before))
    differences = after.double() - before.double()
    count, mean = len(differences), float(differences.mean())
    if count == 1:
        return mean, -math.inf, math.inf
    half = float(differences.std()) / math.sqrt(count) * float(t.ppf((1 + _LEVEL) / 2, count - 1))
    return mean, mean - half, mean + half


def _agresti_min(gained: int, lost: int, count: int) -> tuple[float, float]:
    """Wald's interval of a paired difference of proportions, with 1/2 added to all four counts."""
    gained_more, lost_more, total = gained + 0.5, lost + 0.5, count + 2
    centre = (gained_more - lost_more) / total
    variance = (gained_more + lost_more - (gained_more - lost_more) ** 2 / total) / total**2
    half = float(norm.ppf((1 + _LEVEL) / 2)) * math.sqrt(variance)
    return max(-1.0, centre - half), min(1.0, centre + half)


def _name_of(metric: Metric) -> str:
    if metric is is_correct:
        return "accuracy"
    function = metric.func if isinstance(metric, partial) else metric
    return str(getattr(function, "__name__", type(function).__name__))
