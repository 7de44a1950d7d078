"""Loss scaling for mixed precision: recorded gradients are those of the loss before scaling.

`torch.amp.GradScaler` multiplies the loss, so every gradient of a layer's output carries its
factor. Gradients of parameters do not any more when the optimizer receives them, unless it is one
that divides them itself (fused ones do, told by `optimizer.grad_scale`). A step whose gradients
overflowed is skipped: not called at all, or, by an optimizer that divides itself, without effect.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradflow.errors import TracingError
from gradflow.hooks.records import Columns, StepRecord
from gradflow.runs.format.schema import TABLES

# Powers of the scale in each unit of what a scaled backward pass delivers.
_POWERS = {
    "gradients": {"unit of x": 1, "unit of x^2": 2},
    "junctions": {"unit of dL/dx": 1, "unit of (dL/dx)^2": 2},
    "parameters": {"loss / unit of w": 1},
}


class ScalerObserver:
    """Stands before `scaler.step` while attached, and tells of steps that the scaler skips."""

    def __init__(
        self,
        scaler: torch.amp.GradScaler,
        optimizer: torch.optim.Optimizer,
        on_skip: Callable[[], None],
    ) -> None:
        self._scaler = scaler
        self._optimizer = optimizer
        self._on_skip = on_skip
        self._before: Any = None
        self._attached = False
        self._stepped = False

    def attach(self) -> None:
        """Step before the scaler's own method."""
        self._before = self._scaler.__dict__.get("step")
        self._scaler.step = self  # type: ignore[method-assign]
        self._attached = True

    def detach(self) -> None:
        """Step aside again; what others have put before the scaler's method since stays."""
        self._attached = False
        if self._scaler.__dict__.get("step") is self:
            del self._scaler.__dict__["step"]
            if self._before is not None:
                self._scaler.step = self._before

    def note_step(self) -> None:
        """The optimizer's step has been called."""
        self._stepped = True

    def scale(self) -> Tensor | None:
        """A copy of the scale in force, 0-d on its device; None while nothing is scaled."""
        scale = self._scaler._get_scale_async() if self._scaler.is_enabled() else None
        return None if scale is None else scale.detach().clone()

    def __call__(self, optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> float | None:
        """Take the scaler's step, and tell if it did not reach the optimizer."""
        step = self._before or type(self._scaler).step.__get__(self._scaler)
        self._stepped = False
        result: float | None = step(optimizer, *args, **kwargs)
        if self._attached and optimizer is self._optimizer and not self._stepped:
            self._on_skip()
        return result

    def __reduce__(self) -> str | tuple[Any, ...]:
        # A copy of the scaler gets its own method back.
        return getattr, (self._scaler, "step")


def grad_scale_and_found_inf(
    optimizer: torch.optim.Optimizer | None,
) -> tuple[Tensor | None, Tensor | None]:
    """The factor still in the parameters' gradients, and whether the step will have no effect.

    Both are set on an optimizer that unscales by itself, for the time of its step; else None.
    """
    found = (getattr(optimizer, name, None) for name in ("grad_scale", "found_inf"))
    scale, skipped = (x.detach().clone() if isinstance(x, Tensor) else None for x in found)
    return scale, skipped


def step_columns(records: Sequence[StepRecord]) -> Columns:
    """The columns of the table `steps`."""
    scales = [record.scale for record in records]
    return {
        "epoch": np.ma.array([record.epoch for record in records]),
        "step": np.ma.array([record.step for record in records]),
        "scale": np.ma.array(_to_array(scales), mask=[scale is None for scale in scales]),
        "skipped": np.ma.array(
            [
                bool(value)
                for value in _to_array([record.skipped for record in records], missing=0.0)
            ]
        ),
    }


def unscale(tables: dict[str, Columns], records: Sequence[StepRecord]) -> None:
    """Divide, in `tables`, what was computed from scaled gradients, in place."""
    unscale_histograms(tables, records)
    for name, powers in _POWERS.items():
        attribute = "parameter_scale" if name == "parameters" else "scale"
        scales = [getattr(record, attribute) for record in records]
        if name not in tables or all(scale is None for scale in scales):
            continue
        steps = dict(zip((r.step for r in records), _to_array(scales), strict=True))
        columns = tables[name]
        factors = np.array([steps[int(step)] for step in columns["step"]])
        for quantity in TABLES[name].columns:
            power = powers.get(quantity.unit)
            if power is not None and quantity.name in columns:
                # Not by masked division, which would call an infinite quotient missing.
                column = columns[quantity.name]
                values = np.asarray(column.data) / factors**power
                columns[quantity.name] = np.ma.array(values, mask=np.ma.getmaskarray(column))


def unscale_histograms(tables: dict[str, Columns], records: Sequence[StepRecord]) -> None:
    """Shift the exponents of scaled gradients, in place: a power of two moves every bin alike.

    Raises `TracingError` for a scale that is no power of two.
    """
    if "gradient_histograms" not in tables or all(record.scale is None for record in records):
        return
    shifts = np.log2(_to_array([record.scale for record in records]))
    if (shifts != np.round(shifts)).any():
        raise TracingError(
            "histograms of gradients need loss scales that are powers of two: give the scaler a "
            "power of two to begin with, and to grow and back off by"
        )
    by_step = dict(zip((record.step for record in records), shifts.astype(int), strict=True))
    columns = tables["gradient_histograms"]
    columns["lowest_exponent"] -= np.array([by_step[int(step)] for step in columns["step"]])


def _to_array(entries: Sequence[Any], missing: float = 1.0) -> np.ndarray:
    """Numbers, or 0-d tensors on the device, as an array: one transfer."""
    tensors = [entry.reshape(()).float() for entry in entries if isinstance(entry, Tensor)]
    gathered = iter(torch.stack(tensors).cpu().tolist() if tensors else ())
    return np.array(
        [
            next(gathered)
            if isinstance(entry, Tensor)
            else missing
            if entry is None
            else float(entry)
            for entry in entries
        ]
    )
