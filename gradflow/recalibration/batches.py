"""How a model runs on the batches of a data loader."""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from gradflow.errors import ConfigurationError

Forward = Callable[[nn.Module, Any], Any]

TARGETS = ("labels", "label", "target", "targets")


def run_on(model: nn.Module, batch: Any) -> Any:
    """Run `model` on the inputs in `batch`, moved to the model's device; return its output.

    The inputs are the batch itself, the first of a tuple or list, or, of a mapping, all that the
    model's `forward` takes but the targets.

    Raises `ConfigurationError` for anything else.
    """
    if isinstance(batch, Mapping):
        taken = signature(model.forward).parameters.values()
        takes_all = any(one.kind is one.VAR_KEYWORD for one in taken)
        names = {one.name for one in taken}
        inputs = {
            name: on_device_of(model, value)
            for name, value in batch.items()
            if name not in TARGETS and (takes_all or name in names)
        }
        return model(**inputs)
    if isinstance(batch, (tuple, list)) and batch:
        batch = batch[0]
    if not isinstance(batch, Tensor):
        raise ConfigurationError(
            f"a batch is of type {type(batch).__name__}, not a tensor, a tuple with the inputs "
            "first, or a mapping of arguments: say how the model runs on it with "
            "forward=lambda model, batch: ..."
        )
    return model(on_device_of(model, batch))


def on_device_of(model: nn.Module, value: Any) -> Any:
    """`value`, if it is a tensor on the device of the parameters of `model`."""
    first = next((one for one in (*model.parameters(), *model.buffers())), None)
    if first is None or not isinstance(value, Tensor) or first.device == torch.device("meta"):
        return value
    return value.to(first.device)


def targets_in(batch: Any) -> Any:
    """The targets in a batch: the second of a tuple or list, or those of a mapping by their name.

    Raises `ConfigurationError` if there are none.
    """
    if isinstance(batch, Mapping):
        for name in TARGETS:
            if name in batch:
                return batch[name]
        found = f"a mapping with {', '.join(map(str, batch))}"
    elif isinstance(batch, Sequence) and len(batch) >= 2:
        return batch[1]
    else:
        found = f"of type {type(batch).__name__}"
    raise ConfigurationError(
        f"a validation batch is {found}: it must have targets, as (inputs, targets) or under one "
        f"of the names {', '.join(TARGETS)}"
    )
