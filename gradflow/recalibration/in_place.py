"""`gradflow.recalibrate`: re-estimate the batch-norm statistics of a model in place."""

from collections.abc import Iterable, Mapping
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gradflow.errors import ConfigurationError, GradflowError
from gradflow.hooks.wrappers import unwrapped
from gradflow.recalibration.batches import Forward, run_on
from gradflow.recalibration.estimation import (
    BatchNorms,
    batch_norms,
    is_waiting_for_its_size,
    put_statistics,
    re_estimate,
    settings_kept,
    staleness,
    statistics_of,
)

if TYPE_CHECKING:
    import pandas as pd


def recalibrate(
    model: nn.Module, batches: Iterable[Any], *, forward: Forward = run_on
) -> "pd.DataFrame":
    """Re-estimate the running statistics of every batch norm of `model`, in place.

        moved = gradflow.recalibrate(model, train_loader)
        moved.sort_values("mean_shift")  # the layer last that was furthest off

    Evaluation mode normalizes with running statistics, which lag behind the weights. Here they
    become the plain averages of the statistics of `batches` at the present weights. No weight
    changes, nothing but batch norms is in training mode meanwhile, and all modes stay as they were.

    A batch norm in evaluation mode within a model in training mode is frozen: it stays as it is. A
    synchronized one averages over its processes if each of them calls this. One in several places
    averages over all of them, and a lazy one gets its size from the first batch.

    Args:
        model: any module; wrappers such as `DistributedDataParallel` are seen through.
        batches: training inputs, best in batches of the training's size: tensors, tuples with the
            inputs first, or mappings of arguments, as a data loader gives them. They are moved to
            the model's device. Some hundred batches are enough: `itertools.islice(loader, 200)`.
        forward: runs the model on one of `batches`, if that takes more than a call.

    Returns: one row per batch norm that the batches reached: layer, `mean_shift` and
    `variance_shift`, how far the running statistics were from the re-estimated ones, and channels.
    See `batchnorm_staleness` in `docs/reference/quantities.md`. The others stay as they were.

    Raises `ConfigurationError` if there is no batch norm with running statistics, or no batch, and
    `GradflowError` if the new statistics are not finite. After an error all are what they were.

    Source: Wu & Johnson 2021, Rethinking "Batch" in BatchNorm, section 3.
    """
    import pandas as pd  # noqa: PLC0415 - takes half a second, and only this needs it

    model = unwrapped(model)[0]
    modules = to_re_estimate(model)
    with settings_kept(model, modules):
        return pd.DataFrame(_re_estimated(model, modules, batches, forward))


def to_re_estimate(model: nn.Module) -> BatchNorms:
    """The batch norms of `model` with running statistics, without those that are frozen."""
    found = batch_norms(model)
    if not found:
        without = sum(isinstance(module, _BatchNorm) for module in model.modules())
        kept = (
            f"its {without} batch norms keep none (track_running_stats=False)"
            if without
            else "it has no batch norm"
        )
        raise ConfigurationError(
            f"{type(model).__name__} has no running statistics to re-estimate: {kept}"
        )
    free = {name: one for name, one in found.items() if one.training or not model.training}
    if not free:
        raise ConfigurationError(
            f"all {len(found)} batch norms of {type(model).__name__} are frozen: they are in "
            "evaluation mode and the model is not. To re-estimate them, call model.eval() before"
        )
    return free


def _re_estimated(
    model: nn.Module, modules: BatchNorms, batches: Iterable[Any], forward: Forward
) -> dict[str, list[Any]]:
    given = iter(batches)
    first = list(islice(given, 1))
    if any(map(is_waiting_for_its_size, modules.values())):
        model.eval()
        with torch.no_grad():
            for batch in first:
                forward(model, batch)  # makes what is lazy
    before = {name: statistics_of(module) for name, module in modules.items()}
    try:
        if not re_estimate(model, modules, partial(forward, model), chain(first, given)):
            raise ConfigurationError("there is no batch to re-estimate batch-norm statistics on")
        reached = {name: one for name, one in modules.items() if one.num_batches_tracked}
        _require_finite(reached)
    except BaseException:
        put_back(modules, before)
        raise
    put_back({name: one for name, one in modules.items() if name not in reached}, before)
    return staleness(reached, [before[name] for name in reached])


def put_back(modules: BatchNorms, statistics: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Overwrite the running statistics of `modules` with those of the same names."""
    for name, module in modules.items():
        put_statistics(module, statistics[name])


def _require_finite(modules: BatchNorms) -> None:
    for name, module in modules.items():
        if not all(bool(one.isfinite().all()) for one in statistics_of(module).values()):
            raise GradflowError(
                f"the statistics of layer {name} are not finite with these batches: look for nan "
                "or infinite values in the inputs, or in the weights before this layer"
            )
