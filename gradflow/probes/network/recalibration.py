"""Re-estimates batch-norm statistics on training images, without changing any weight.

Running statistics are an exponential average over past steps with other weights, so they lag
behind. They stand for the average over the training images at the present weights, which is
computed here ("precise batch norm": Wu & Johnson 2021, Rethinking "Batch" in BatchNorm).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Columns = dict[str, list[Any]]


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The batch-norm modules of `model` that keep running statistics."""
    return list(_named_batch_norms(model).values())


def _named_batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """The same modules by name; the model itself goes by its class."""
    return {
        name or type(module).__name__: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    }


@contextmanager
def recalibrated(model: nn.Module, batches: Iterable[Tensor]) -> Iterator[Columns]:
    """Within the context, `model` is in evaluation mode with statistics re-estimated on `batches`.

    The new statistics are the plain averages, over all batches, of the batch means and of the
    unbiased batch variances; training also averages these. Afterwards every buffer and every mode
    is restored, also after an exception.

    Yields the columns of the table `batchnorm_staleness` without `epoch`: the distance of the
    running statistics from the re-estimated ones, one row per batch-norm layer.

    Args:
        model: a module with batch norms; without any, it is only put in evaluation mode.
        batches: inputs of the model, each [N, ...], preferably of the batch size of the training.
    """
    modules = batch_norms(model)
    modes = {module: module.training for module in model.modules()}
    kept = [
        ({name: buffer.clone() for name, buffer in module.named_buffers()}, module.momentum)
        for module in modules
    ]
    try:
        model.eval()
        _re_estimate(model, modules, batches)
        model.eval()
        yield _staleness(model, [buffers for buffers, _ in kept])
    finally:
        for module, (buffers, momentum) in zip(modules, kept, strict=True):
            module.momentum = momentum
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])
        for part, mode in modes.items():
            part.training = mode


@torch.no_grad()
def _re_estimate(model: nn.Module, modules: list[_BatchNorm], batches: Iterable[Tensor]) -> None:
    for module in modules:
        module.reset_running_stats()
        module.momentum = None  # PyTorch's sign for a plain average over all batches
        module.train()
    if modules:
        for batch in batches:
            model(batch)


@torch.no_grad()
def _staleness(model: nn.Module, running: Sequence[Mapping[str, Tensor]]) -> Columns:
    """The distance of the statistics in `running`, one per layer, from those now in `model`."""
    columns: Columns = {"layer": [], "mean_shift": [], "variance_shift": [], "channels": []}
    for (name, module), buffers in zip(_named_batch_norms(model).items(), running, strict=True):
        now = dict(module.named_buffers())
        variance = now["running_var"].double() + module.eps
        before = buffers["running_var"].double() + module.eps
        shift = buffers["running_mean"].double() - now["running_mean"].double()
        columns["layer"].append(name)
        columns["mean_shift"].append(_root_mean_square(shift / variance.sqrt()))
        columns["variance_shift"].append(_root_mean_square((before / variance).log()))
        columns["channels"].append(module.num_features)
    return columns


def _root_mean_square(x: Tensor) -> float:
    return float(x.square().mean().sqrt())
