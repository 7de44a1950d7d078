"""Finds the first nan or infinity of a step: in the images, the weights, a layer or a gradient."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow.data import Batch
from gradflow.hooks.layers import first_tensor
from gradflow.probes.execution import copy_without_hooks


@dataclass(frozen=True)
class NonFinite:
    """The first nan or infinity of a step: its `place` in words, and the `count` of such values."""

    step: int
    place: str
    count: int

    def __str__(self) -> str:
        values = "value" if self.count == 1 else "values"
        return f"step {self.step} has {self.count} non-finite {values} in {self.place}"


def nonfinite_from_trace(entry: Mapping[str, Any] | None) -> NonFinite | None:
    """The result of `Tracer.first_nonfinite`, as `find_nonfinite` would describe it."""
    if entry is None:
        return None
    what = "the output" if entry["direction"] == "forward" else "the gradient of the output"
    return NonFinite(entry["step"], f"{what} of layer {entry['layer']}", entry["count"])


def gradients_are_finite(model: nn.Module) -> bool:
    """Whether the gradient of every parameter is finite. Reads each gradient once."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    if not gradients:
        return True
    norms = torch._foreach_norm(gradients)
    return bool(torch.isfinite(torch.stack([norm.float() for norm in norms])).all())


def find_nonfinite(model: nn.Module, batch: Batch, step: int) -> NonFinite | None:
    """Run `batch` again through a copy of `model`, and find the first non-finite value.

    The order of the search is that in which non-finite values spread: the images, the weights and
    statistics, the layers' outputs in order of execution, the loss, the gradients of the outputs in
    backward order. None if all values are finite. `model` does not change.
    """
    found = partial(NonFinite, step)
    own = copy_without_hooks(model).train()
    if count := _count_nonfinite(batch.images):
        return found("the images", count)
    for name, value in own.state_dict().items():
        if count := _count_nonfinite(value):
            return found(f"the weights {name}", count)
    with _nonfinite_values(own) as (outputs, gradients):
        loss = F.cross_entropy(own(batch.images), batch.targets)
        if outputs:
            return found(*outputs[0])
        if count := _count_nonfinite(loss):
            return found("the loss", count)
        loss.backward()
        return found(*gradients[0]) if gradients else None


@contextmanager
def _nonfinite_values(
    model: nn.Module,
) -> Iterator[tuple[list[tuple[str, int]], list[tuple[str, int]]]]:
    """Hooks that collect, in order, the layers whose outputs or gradients are not finite."""
    outputs: list[tuple[str, int]] = []
    gradients: list[tuple[str, int]] = []

    def on_gradient(name: str, gradient: Tensor) -> None:
        if count := _count_nonfinite(gradient):
            gradients.append((f"the gradient of the output of layer {name}", count))

    def on_output(name: str, module: nn.Module, args: Any, output: Any) -> None:
        tensor = first_tensor(output)
        if tensor is None:
            return
        if count := _count_nonfinite(tensor):
            outputs.append((f"the output of layer {name}", count))
        if tensor.requires_grad:
            tensor.register_hook(partial(on_gradient, name))

    handles = [
        module.register_forward_hook(partial(on_output, name))
        for name, module in model.named_modules()
        if name and not list(module.children())
    ]
    try:
        yield outputs, gradients
    finally:
        for handle in handles:
            handle.remove()


def _count_nonfinite(value: Tensor) -> int:
    if not value.is_floating_point():
        return 0
    return int((~torch.isfinite(value.detach())).sum())
