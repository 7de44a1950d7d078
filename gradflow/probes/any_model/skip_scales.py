"""`gradflow.probes.scaled_skips`: how a trained model answers to weaker skips."""

import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from gradflow.hooks.wrappers import unwrapped
from gradflow.probes.any_model.passes import (
    Pass,
    Reweighted,
    Sum,
    Weights,
    first_pass,
    in_evaluation_mode,
    number,
    run,
)
from gradflow.probes.any_model.paths import Loss
from gradflow.probes.probe import NotMeasurableError
from gradflow.recalibration.batches import run_on
from gradflow.recalibration.estimation import batch_norms, statistics_kept
from gradflow.recalibration.in_place import recalibrate

if TYPE_CHECKING:
    import pandas as pd


def scaled_skips(
    model: nn.Module,
    inputs: Any,
    targets: Any,
    loss: Loss = F.cross_entropy,
    *,
    scales: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    batches: Iterable[Any] | None = None,
) -> "pd.DataFrame":
    """Multiply all skips of a trained model by each of `scales`, and measure loss and gradient.

        response = gradflow.probes.scaled_skips(model, images, labels, batches=list(loader))
        response.plot("scale", "gradient_norm", logy=True)

    Each residual addition becomes y = scale * skip(x) + branch(x); 1 is the model as it is, and 0
    takes all skips away. The additions are those that the tracer finds (`run.junctions`), in any
    architecture. The model runs in evaluation mode, and stays as it is.

    Args:
        model: any module with residual additions; its additions must be the same for every run.
        inputs: a tensor, a tuple of arguments, or a mapping of keyword arguments.
        targets: what `loss` compares the output with.
        loss: called with what the model returns and with `targets`; returns a scalar.
        scales: the factors of the skips.
        batches: training batches. With them, the batch-norm statistics are re-estimated at each
            scale (`gradflow.recalibrate`) and put back at the end; a list, since it is read for
            each. Without, they are those of the model as it is, which belong to scale 1.

    Returns: a row per scale: `scale`; `loss`; `gradient_norm`, that of the loss with respect to
    the tensor that the first addition's skip and branch read, missing if no call returns it, and
    where the backward pass runs modules anew, as a checkpoint does: their sums are not scaled.

    Raises `gradflow.probes.NotMeasurableError` if the model has no residual addition, or has one
    whose skip and branch are not added by one call of `+` or `torch.add`.
    """
    import pandas as pd  # noqa: PLC0415 - takes half a second, and only this needs it

    model = unwrapped(model)[0]
    norms = batch_norms(model) if batches is not None else {}
    again = list(batches or ())
    rows = []
    with in_evaluation_mode(model):
        found = first_pass(model, inputs)
        calls = _calls(model, found)
        with statistics_kept(norms) if norms else nullcontext():
            for scale in scales:
                weights = dict.fromkeys(calls, Weights(scale, 1.0))
                scaled = Reweighted(weights, watched=found.start_made)
                if norms:
                    # What is watched is counted over the calls of `run`, which has some of its own.
                    recalibrate(model, again, forward=partial(_run, Reweighted(weights)))
                rows.append((scale, *_measured(model, inputs, targets, loss, scaled)))
    return pd.DataFrame(rows, columns=["scale", "loss", "gradient_norm"])


def _calls(model: nn.Module, found: Pass) -> list[Sum]:
    hidden = [one.layer for one in found.additions if one.call is None]
    if hidden:
        raise NotMeasurableError(
            f"{type(model).__name__} does not add skip and branch by one call of `+` or torch.add "
            f"in {', '.join(hidden)}, so this skip cannot be scaled"
        )
    return [one.call for one in found.additions if one.call is not None]


def _run(scaled: Reweighted, model: nn.Module, batch: Any) -> Any:
    scaled.restart()
    with scaled:
        return run_on(model, batch)


def _measured(
    model: nn.Module, inputs: Any, targets: Any, loss: Loss, scaled: Reweighted
) -> tuple[float, float]:
    """The loss, and the norm of its gradient at the start of the first addition."""
    scaled.restart()
    with torch.enable_grad():
        with scaled:
            output = run(model, inputs)
        value = loss(output, targets)
    if scaled.seen is None:
        return number(value), math.nan
    again: list[nn.Module] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, _: again.append(module))
        for module in model.modules()
    ]
    try:
        (gradient,) = torch.autograd.grad(value, scaled.seen)
    finally:
        for hook in hooks:
            hook.remove()
    if again:  # a checkpoint runs them anew, and its sums are not scaled
        return number(value), math.nan
    return number(value), float(gradient.detach().cpu().double().norm())
