"""Re-estimates batch-norm statistics on training inputs, without changing any weight.

Running statistics are an exponential average over past steps with other weights, so they lag
behind. They stand for the average over the training inputs at the present weights, which is
computed here ("precise batch norm": Wu & Johnson 2021, Rethinking "Batch" in BatchNorm).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import UninitializedBuffer

Columns = dict[str, list[Any]]
BatchNorms = Mapping[str, _BatchNorm]


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """The batch norms of `model` that keep running statistics, by name.

    One that is used in several places comes once. If `model` is a batch norm itself, it goes by its
    class.
    """
    return {
        name or type(module).__name__: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    }


def is_waiting_for_its_size(module: _BatchNorm) -> bool:
    """Whether `module` is a lazy batch norm that no forward pass has reached yet."""
    return isinstance(module.running_mean, UninitializedBuffer)


@contextmanager
def recalibrated(model: nn.Module, batches: Iterable[Tensor]) -> Iterator[Columns]:
    """Within the context, `model` is in evaluation mode with statistics re-estimated on `batches`.

    Afterwards every buffer and every mode is restored, also after an exception.

    Yields the columns of the table `batchnorm_staleness` without `epoch`: the distance of the
    running statistics from the re-estimated ones, one row per batch-norm layer.

    Args:
        model: a module with batch norms; without any, it is only put in evaluation mode.
        batches: inputs of the model, each [N, ...], preferably of the batch size of the training.
    """
    modules = batch_norms(model)
    with settings_kept(model, modules), statistics_kept(modules) as before:
        re_estimate(model, modules, model, batches)
        yield staleness(modules, before)


@contextmanager
def settings_kept(model: nn.Module, modules: BatchNorms) -> Iterator[None]:
    """At the end, give the parts of `model` their modes back, and `modules` their momenta."""
    modes = {module: module.training for module in model.modules()}
    momenta = {module: module.momentum for module in modules.values()}
    try:
        yield
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def statistics_kept(modules: BatchNorms) -> Iterator[Sequence[Mapping[str, Tensor]]]:
    """Give `modules` their running statistics back at the end; yield copies of these."""
    kept = [statistics_of(module) for module in modules.values()]
    try:
        yield kept
    finally:
        for module, buffers in zip(modules.values(), kept, strict=True):
            put_statistics(module, buffers)


def statistics_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the running statistics of `module`, by the name of the buffer."""
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


def put_statistics(module: nn.Module, statistics: Mapping[str, Tensor]) -> None:
    """Overwrite the running statistics of `module`."""
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            buffer.copy_(statistics[name])


@torch.no_grad()
def re_estimate(
    model: nn.Module,
    modules: BatchNorms,
    forward: Callable[[Any], object],
    batches: Iterable[Any],
) -> int:
    """Re-estimate the running statistics of `modules`, and leave `model` in evaluation mode.

    The new statistics are the plain averages, over all batches, of the batch means and of the
    unbiased batch variances; training also averages these. A batch norm that is used several times
    in a forward pass averages over all its uses. It changes momenta: call it in `settings_kept`.

    Args:
        forward: runs `model` on a batch.

    Returns: the number of batches.
    """
    model.eval()
    for module in modules.values():
        module.reset_running_stats()
        module.momentum = None  # PyTorch's sign for a plain average over all batches
        module.train()
    count = 0
    for batch in batches if modules else ():
        forward(batch)
        count += 1
    model.eval()
    return count


@torch.no_grad()
def staleness(modules: BatchNorms, running: Sequence[Mapping[str, Tensor]]) -> Columns:
    """The distance of the statistics in `running`, one per layer, from those now in `modules`.

    Both are root mean squares over the channels: of the difference of the means, in standard
    deviations, and of the logarithm of the ratio of the variances, with the `eps` of the layer.
    """
    columns: Columns = {"layer": [], "mean_shift": [], "variance_shift": [], "channels": []}
    for (name, module), buffers in zip(modules.items(), running, strict=True):
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
