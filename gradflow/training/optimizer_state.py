"""Puts back what an optimizer remembered, where it fits the parameters."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# Of a parameter, by torch.optim.Adam: the count of its updates, and averages of its own shape.
_COUNT, _AVERAGES = "step", ("exp_avg", "exp_avg_sq")


def restore_optimizer(optimizer: torch.optim.Adam, state: Mapping[str, Any]) -> None:
    """Put what `state`, an Adam's, says of each parameter into `optimizer`.

    The settings stay those that it was made with: they are options of the training.

    Raises `ValueError`, or what torch raises, where the state is that of other parameters. Found
    later, in the midst of an update, it would end the training without a sentence.
    """
    own = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state["state"], "param_groups": own})
    for parameter, kept in optimizer.state.items():
        if not isinstance(parameter, Tensor) or set(kept) != {_COUNT, *_AVERAGES}:
            raise ValueError("its optimizer's state is of other parameters")
        if not _is_count(kept[_COUNT]):
            raise ValueError("its optimizer's count of updates is none")
        for name in _AVERAGES:
            if not isinstance(kept[name], Tensor) or kept[name].shape != parameter.shape:
                raise ValueError("its optimizer's averages are of another shape")
            # A copy: numbers of a file may share their memory, which an update may not write to.
            kept[name] = kept[name].clone()


def _is_count(value: Any) -> bool:
    if not isinstance(value, Tensor) or value.shape != () or not value.is_floating_point():
        return False
    return bool(torch.isfinite(value) and value >= 1)
