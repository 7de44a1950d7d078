"""Loss scaling in mixed precision: gradients are recorded as those of the unscaled loss.

`torch.amp.GradScaler` multiplies the loss by a scale, so every gradient of a layer's output is
multiplied by it too. Gradients of parameters are unscaled before the optimizer receives them,
unless the optimizer does it itself (fused ones do; they read `optimizer.grad_scale`). If gradients
overflowed, the step is skipped: the scaler does not call the optimizer, or the optimizer that
unscales by itself changes nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.recording.records import Columns, StepRecord
from gradflow.runs.format.schema import TABLES

# The power of the scale to divide by, for each unit of a quantity of gradients.
_POWERS: dict[str, dict[str, int]] = {
    "gradients": {"unit of x": 1, "unit of x^2": 2},
    "junctions": {"unit of dL/dx": 1, "unit of (dL/dx)^2": 2},
    "parameters": {"loss / unit of w": 1},
    "positions": {"loss / unit of x": 1},
}


# The scaler has taken the scale out of these, or leaves it to the optimizer: `parameter_scale`.
_RECEIVED = ("parameters", "gradient_norm")


class ScalerObserver:
    """Replaces `scaler.step` while attached, and calls `on_skip` if the scaler skips a step.

    `is_ours` says whether an optimizer is one that the tracer follows.
    """

    def __init__(
        self,
        scaler: torch.amp.GradScaler,
        is_ours: Callable[[object], bool],
        on_skip: Callable[[object], None],
    ) -> None:
        self._scaler = scaler
        self._is_ours = is_ours
        self._on_skip = on_skip
        self._before: Any = None
        self._attached = False
        self._stepped = False

    def attach(self) -> None:
        """Replace the scaler's `step` method by this object."""
        self._before = self._scaler.__dict__.get("step")
        self._scaler.step = self  # type: ignore[method-assign]
        self._attached = True

    def detach(self) -> None:
        """Restore the scaler's `step` method, unless somebody else has replaced it since."""
        self._attached = False
        if self._scaler.__dict__.get("step") is self:
            del self._scaler.__dict__["step"]
            if self._before is not None:
                self._scaler.step = self._before

    def note_step(self) -> None:
        """Note that the optimizer's step has been called."""
        self._stepped = True

    def scale(self) -> Tensor | None:
        """Return a copy of the present scale, 0-d on its device; None if the scaler is disabled."""
        scale = self._scaler._get_scale_async() if self._scaler.is_enabled() else None
        return None if scale is None else scale.detach().clone()

    def coming_scale(self) -> Tensor | float | None:
        """Return the factor of the loss that is scaled next; None if the scaler is disabled."""
        scale = self.scale()
        if scale is None and self._scaler.is_enabled():
            return self._scaler._init_scale  # it has scaled nothing yet
        return scale

    def __call__(self, optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> float | None:
        """Call the scaler's step, and `on_skip` if the scaler did not call the optimizer."""
        step = self._before or type(self._scaler).step.__get__(self._scaler)
        self._stepped = False
        result: float | None = step(optimizer, *args, **kwargs)
        if self._attached and not self._stepped and self._is_ours(optimizer):
            self._on_skip(optimizer)
        return result

    def __reduce__(self) -> str | tuple[Any, ...]:
        # In a copy of the scaler, `step` is the scaler's own method again.
        return getattr, (self._scaler, "step")


def grad_scale_and_found_inf(
    optimizer: torch.optim.Optimizer | None,
) -> tuple[Tensor | None, Tensor | None]:
    """Return the scale still in the parameters' gradients, and whether the step will be skipped.

    torch sets both on an optimizer that unscales by itself, during its step; otherwise None.
    """
    found = (getattr(optimizer, name, None) for name in ("grad_scale", "found_inf"))
    scale, skipped = (x.detach().clone() if isinstance(x, Tensor) else None for x in found)
    return scale, skipped


def step_columns(records: Sequence[StepRecord]) -> Columns:
    """Return the columns of the table `steps`."""
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
        "loss": _losses([record.losses for record in records]),
    }


def _losses(by_step: Sequence[Sequence[Tensor | float]]) -> np.ma.MaskedArray[Any, Any]:
    """The mean loss of each step, missing where none was given, with a single transfer."""
    places = [place for place, losses in enumerate(by_step) for _ in losses]
    values = _to_array([loss for losses in by_step for loss in losses])
    counts = np.array([len(losses) for losses in by_step])
    sums = np.bincount(places, weights=values, minlength=len(by_step)) if places else counts * 0.0
    return np.ma.array(sums / np.maximum(counts, 1), mask=counts == 0)


def unscale(tables: dict[str, Columns], records: Sequence[StepRecord]) -> bool:
    """Divide the quantities computed from scaled gradients by the scale, in place.

    Return False if the histograms had to be left out, see `unscale_histograms`.
    """
    histograms_kept = unscale_histograms(tables, records)
    scales = {"scale": [r.scale for r in records], "received": [r.parameter_scale for r in records]}
    by_step = {
        kind: dict(zip((r.step for r in records), _to_array(values), strict=True))
        for kind, values in scales.items()
        if any(value is not None for value in values)
    }
    for name, powers in _POWERS.items():
        columns = tables.get(name, {})
        for quantity in TABLES[name].columns:
            power = powers.get(quantity.unit)
            kind = "received" if (name, quantity.name) == _RECEIVED else "scale"
            if power is None or quantity.name not in columns or kind not in by_step:
                continue
            factors = np.array([by_step[kind][int(step)] for step in columns["step"]])
            # A masked division would mark an infinite quotient as missing.
            column = columns[quantity.name]
            values = np.asarray(column.data) / factors**power
            columns[quantity.name] = np.ma.array(values, mask=np.ma.getmaskarray(column))
    return histograms_kept


def unscale_histograms(tables: dict[str, Columns], records: Sequence[StepRecord]) -> bool:
    """Shift the exponents of scaled gradients, in place: a power of two shifts all bins equally.

    If a scale is not a power of two, the table is removed, and False returned.
    """
    if "gradient_histograms" not in tables or all(record.scale is None for record in records):
        return True
    shifts = np.log2(_to_array([record.scale for record in records]))
    if (shifts != np.round(shifts)).any():
        del tables["gradient_histograms"]
        return False
    by_step = dict(zip((record.step for record in records), shifts.astype(int), strict=True))
    columns = tables["gradient_histograms"]
    columns["lowest_exponent"] -= np.array([by_step[int(step)] for step in columns["step"]])
    return True


def _to_array(entries: Sequence[Any], missing: float = 1.0) -> np.ndarray:
    """Return numbers and 0-d tensors on the device as an array, with a single transfer."""
    tensors = [entry.reshape(()).float() for entry in entries if isinstance(entry, Tensor)]
    # A loss may be on another device than others, whose transfer waits for its device alone.
    tensors = [entry.to(tensors[0].device) for entry in tensors]
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
