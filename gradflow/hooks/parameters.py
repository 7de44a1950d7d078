"""Norms of parameters, their gradients and their updates, step by step.

Two things are kept between steps, each as large as the model: a copy of the weights, once a step of
the optimizer was recorded, and the previous gradients, if the next step is recorded too and needs
them for the cosine.
"""

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from gradflow.hooks.distributed import is_sharded, local_part
from gradflow.hooks.previous_gradients import PreviousGradients
from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.fused import safe_norm

_OPTIMIZER_FILE = inspect.getfile(torch.optim.Optimizer)

ParameterValues = dict[str, dict[str, Tensor | float]]


def is_nested_step(optimizer: torch.optim.Optimizer | None) -> bool:
    """Whether the running step hook belongs to a `step` that was called inside another `step`.

    If the `step` of an optimizer calls that of its base class, the hooks run twice: torch wraps
    both.
    """
    steps, frame = 0, inspect.currentframe()
    while frame is not None:
        code = frame.f_code
        if code.co_filename == _OPTIMIZER_FILE and code.co_name == "wrapper":
            steps += frame.f_locals.get("self") is optimizer
        frame = frame.f_back
    return steps > 1


class ParameterRecorder:
    """Measures every parameter of `model` around an optimizer step.

    `before_update` is called when the step begins: `record` means measure this step;
    `keep_gradients`, that the next step is measured and needs them for its cosine; `keep_weights`,
    that `after_update`, called when the step has ended, is to compute the update. Nothing is read
    back from a device other than the CPU.
    """

    def __init__(self, model: nn.Module) -> None:
        self._all = dict(model.named_parameters())
        self._sharded = {name for name, parameter in self._all.items() if is_sharded(parameter)}
        self._weights: dict[str, Tensor] = {}
        self._previous = PreviousGradients()
        self._values: ParameterValues = {}

    @property
    def _parameters(self) -> dict[str, Parameter]:
        """The parameters trained now: a training loop may freeze and unfreeze layers."""
        return {
            name: parameter
            for name, parameter in self._all.items()
            if parameter.requires_grad and parameter.is_floating_point()
        }

    @torch.no_grad()
    def before_update(
        self, *, record: bool, keep_gradients: bool, keep_weights: bool = False
    ) -> None:
        """Measure what is known when the optimizer's step begins."""
        self._values = {}
        if record:
            for name, parameter in self._parameters.items():
                self._values[name] = {
                    "weight_norm": self._weight_norm(name, parameter, keep_weights)
                }
        measured = self._previous.measure(self._parameters, compare=record, keep=keep_gradients)
        if record:
            for name, (norm, cosine, previous_norm) in measured.items():
                row = self._values[name]
                row["gradient_norm"] = norm
                if cosine is not None:
                    row["gradient_cosine"] = cosine
                if previous_norm is not None and name in self._sharded:
                    row["previous_gradient_norm"] = previous_norm

    @torch.no_grad()
    def after_update(self, *, weights_kept: bool) -> ParameterValues:
        """Return the measured values by parameter and quantity, without the unknown ones.

        `weights_kept` says that `before_update` has kept the weights.
        """
        self._previous.check_after_step(self._parameters)
        values, self._values = self._values, {}
        if weights_kept:
            for name, row in values.items():
                weight, kept = local_part(self._all[name].detach()), self._weights[name]
                square = cpu.square_distance(weight, kept)
                row["update_norm"] = (
                    safe_norm(weight - kept) if square is None else math.sqrt(square)
                )
        return values

    def state_dict(self) -> dict[str, Any]:
        """Return the gradients kept for the next step's cosine."""
        return self._previous.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the kept gradients, each on the device of its parameter."""
        gradients = {
            name: gradient.to(local_part(self._all[name].detach()).device)
            for name, gradient in state["gradients"].items()
        }
        self._previous.load_state_dict({**state, "gradients": gradients})

    def _weight_norm(self, name: str, parameter: Tensor, keep: bool) -> Tensor | float:
        """Return the norm of a parameter; if `keep`, also copy it, in the same read."""
        weight = local_part(parameter.detach())
        if not keep:
            square = cpu.square_sum(weight)
            return safe_norm(weight) if square is None else math.sqrt(square)
        # The buffers are reused: allocating new ones costs three times the copy.
        if name not in self._weights:
            self._weights[name] = torch.empty_like(weight)
        kept = self._weights[name]
        square = cpu.copy_and_square_sum(weight, kept)
        if square is not None:
            return math.sqrt(square)
        kept.copy_(weight)
        return safe_norm(weight)
