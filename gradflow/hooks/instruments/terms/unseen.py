"""Backward passes of the tracer's own, of which the training notices nothing.

`torch.autograd.grad` fills no `.grad` and runs no hooks that wait for a `.grad`, such as those of
`DistributedDataParallel`. What else could notice a pass is put aside, or put back:

- hooks on gradients: of parameters, of the outputs of layers, and of modules;
- the `.grad` of outputs that retain it;
- random states, and buffers such as running statistics: a checkpointed segment runs its forward
  pass again;
- autocasting, in which backward passes are not to run.

A hook on another tensor than those cannot be reached, and neither can what a function of the
user's does in its backward.
"""

import random
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.modules import module as module_hooks
from torch.nn.parameter import is_lazy

from gradflow.hooks.instruments.terms.outputs import KeptOutput

_Hooks = MutableMapping[int, Any]
# Devices, beside the CPU, of which torch can put back a random state.
_WITH_STATES = {"cuda", "xpu"}


@contextmanager
def unseen(
    model: nn.Module, outputs: Iterable[KeptOutput], terms: Iterable[Tensor]
) -> Iterator[None]:
    """Hide the backward passes that run in this context: those from `terms` back to `outputs`."""
    outputs = list(outputs)
    hooks = [*_hooks_on(model.parameters()), *(one.hooks for one in outputs if one.hooks)]
    if _has_module_hooks(model):
        hooks += _hooks_on_nodes(terms)
    with ExitStack() as stack:
        for kind in {parameter.device.type for parameter in model.parameters()} | {"cpu"}:
            if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(_same_random_states(model))
        stack.enter_context(_same_buffers(model))
        stack.enter_context(_same_retained_gradients(outputs))
        stack.enter_context(_without_hooks(hooks))
        yield


@contextmanager
def _without_hooks(hooks: Iterable[_Hooks]) -> Iterator[None]:
    aside = [(one, dict(one)) for one in {id(one): one for one in hooks}.values()]
    for one, _ in aside:
        one.clear()
    try:
        yield
    finally:
        for one, entries in aside:
            one.update(entries)


@contextmanager
def _same_random_states(model: nn.Module) -> Iterator[None]:
    devices = {parameter.device for parameter in model.parameters()}
    of_python, of_numpy = random.getstate(), np.random.get_state()
    with ExitStack() as stack:
        for kind in {device.type for device in devices} & _WITH_STATES:
            alike = [device for device in devices if device.type == kind]
            stack.enter_context(torch.random.fork_rng(alike, device_type=kind))
        stack.enter_context(torch.random.fork_rng([]))
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)


@contextmanager
def _same_buffers(model: nn.Module) -> Iterator[None]:
    before = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and _can_change(buffer)
    ]
    try:
        yield
    finally:
        for module, name, buffer, values in before:
            module._buffers[name] = buffer
            # By way of `data`, autograd does not take it for a change of what it has kept.
            buffer.data.copy_(values)


def _can_change(buffer: Tensor) -> bool:
    """Whether the values of a buffer can be changed in place."""
    if is_lazy(buffer) or buffer.is_inference():
        return False
    # Of an expanded one, several elements are the same number: torch refuses to write there.
    return buffer.layout is not torch.strided or 0 not in [
        stride for stride, size in zip(buffer.stride(), buffer.shape, strict=True) if size > 1
    ]


@contextmanager
def _same_retained_gradients(outputs: Iterable[KeptOutput]) -> Iterator[None]:
    tensors = [tensor for one in outputs if (tensor := one.tensor()) is not None]
    retained = [(tensor, tensor.grad) for tensor in tensors if tensor.retains_grad]
    try:
        yield
    finally:
        for tensor, gradient in retained:
            tensor.grad = gradient


def _hooks_on(tensors: Iterable[Tensor]) -> Iterator[_Hooks]:
    for tensor in tensors:
        if tensor._backward_hooks:
            yield tensor._backward_hooks


def _has_module_hooks(model: nn.Module) -> bool:
    return bool(
        module_hooks._global_backward_hooks
        or module_hooks._global_backward_pre_hooks
        or any(one._backward_hooks or one._backward_pre_hooks for one in model.modules())
    )


def _hooks_on_nodes(terms: Iterable[Tensor]) -> list[_Hooks]:
    """The hooks that modules have put on the nodes of the graph."""
    waiting: list[Node | None] = [term.grad_fn for term in terms]
    seen: set[Node] = set()
    found: list[_Hooks] = []
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [behind for behind, _ in node.next_functions]
        # Only a hook's handle tells where a node has its hooks.
        handle = node.register_hook(_nothing)
        hooks = handle.hooks_dict_ref()
        handle.remove()
        if hooks:
            found.append(hooks)
    return found


def _nothing(*_: Any) -> None:
    """A hook that does nothing."""
