"""Restores the state of an Adam optimizer, and of a loss scaler, after checking it."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# torch.optim.Adam keeps for each parameter the count of its updates and averages of its shape.
_COUNT, _AVERAGES = "step", ("exp_avg", "exp_avg_sq")


def restore_optimizer(optimizer: torch.optim.Adam, state: Mapping[str, Any]) -> None:
    """Load the averages and counts of an Adam's `state` into `optimizer`.

    `optimizer` keeps its own settings, e.g. the learning rate: they are options of the training.

    Raises `ValueError`, or an error of torch, if the state belongs to other parameters. Without
    this check the next update would fail without a clear message.
    """
    own = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state["state"], "param_groups": own})
    for parameter, kept in optimizer.state.items():
        if not isinstance(parameter, Tensor) or set(kept) != {_COUNT, *_AVERAGES}:
            raise ValueError("its optimizer state belongs to other parameters")
        if not _is_count(kept[_COUNT]):
            raise ValueError("its optimizer state has an invalid count of updates")
        for name in _AVERAGES:
            if not isinstance(kept[name], Tensor) or kept[name].shape != parameter.shape:
                raise ValueError("its optimizer state has averages of another shape")
            # A copy: tensors of a file may share memory, and updates may not write to such memory.
            kept[name] = kept[name].clone()


def restore_scaler(scaler: torch.amp.GradScaler, state: Mapping[str, Any]) -> None:
    """Load the scale and the count of steps since it changed; the settings stay the scaler's own.

    Raises `ValueError` if they are no such numbers.
    """
    scale, count = state["scale"], state["_growth_tracker"]
    if not (isinstance(scale, float) and 0 < scale < math.inf):
        raise ValueError("its loss scale is not a positive number")
    if type(count) is not int or not 0 <= count <= scaler.get_growth_interval():
        raise ValueError("its count of steps at the present loss scale is not a valid number")
    scaler.load_state_dict({**scaler.state_dict(), "scale": scale, "_growth_tracker": count})


def _is_count(value: Any) -> bool:
    if not isinstance(value, Tensor) or value.shape != () or not value.is_floating_point():
        return False
    return bool(torch.isfinite(value) and value >= 1)
