"""Norms of parameters, their gradients and their updates, step by step.

Which parameters there are is looked up again in every recorded step: models grow, and shrink.
Two things are kept between steps, each as large as the model: a copy of the weights, once a step
was recorded, and the previous gradients, if the next step is recorded too and needs
them for the cosine.
"""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.parameter import is_lazy

from gradflow.hooks.processes.tensors import is_sharded, local_part
from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.fused import safe_norm
from gradflow.hooks.updates.backward_gradients import BackwardGradients
from gradflow.hooks.updates.previous_gradients import (
    PreviousGradients,
    are_alike,
    dense_gradient,
    norm_of,
)
from gradflow.hooks.wrappers import named_parameters

ParameterValues = dict[str, dict[str, Tensor | float]]


class ParameterRecorder:
    """Measures every parameter of `model` around an update.

    `pass_ended` is called when a backward pass has filled `.grad`, `begin_update` before the
    weights change, `measure_gradients` when an optimizer receives its gradients, for its parameters
    alone or for all not measured yet, `after_update` when the step has ended, and then `end_step`,
    also if the step is not recorded. Nothing is read back from a device other than the CPU.

    `is_recording` says whether what happens now belongs to a recorded step; by default it does.

    Fields:
        backward: the gradients as backward leaves them.
        gradients_were_missed: whether a backward pass of the step filled gradients of which none
            could be read.
    """

    def __init__(self, model: nn.Module, is_recording: Callable[[], bool] = lambda: True) -> None:
        self._model = model
        self._all = dict(named_parameters(model))
        self._sharded = {name for name, parameter in self._all.items() if is_sharded(parameter)}
        self.backward = BackwardGradients(
            lambda name: name not in self._measured and is_recording(), self._keep_weight_of
        )
        self.gradients_were_missed = False
        self._weights: dict[str, Tensor] = {}
        self._kept: set[str] = set()
        self._previous = PreviousGradients()
        self._values: ParameterValues = {}
        self._measured: set[str] = set()

    @property
    def _parameters(self) -> dict[str, Parameter]:
        """The parameters trained now: a training loop may freeze and unfreeze layers."""
        return {name: one for name, one in self._all.items() if _is_trained(one)}

    @property
    def names(self) -> dict[str, Parameter]:
        """All parameters known, by name."""
        return self._all

    def look_up(self) -> None:
        """Look up which parameters the model has now; only in recorded steps."""
        # FSDP2 has other tensors in place of its shards while the model runs.
        if not self._sharded:
            self._all = dict(named_parameters(self._model))
            for name in self._weights.keys() - self._all.keys():
                del self._weights[name]
            for name in self._values.keys() - self._all.keys():
                del self._values[name]
            self._kept &= self._all.keys()
            self.backward.keep_only(self._all.keys())

    def follow_arrivals(self) -> None:
        """Have gradients that do not last read as they arrive, before a pass of a recorded step."""
        self.backward.follow_arrivals(self._parameters)

    @torch.no_grad()
    def pass_ended(self) -> None:
        """Measure the gradients that a backward pass has left, but for those received already."""
        self.look_up()
        left = {name: one for name, one in self._parameters.items() if name not in self._measured}
        self.backward.pass_ended(left)
        self.gradients_were_missed = bool(left) and not self.backward.norms

    @torch.no_grad()
    def begin_update(self, *, record: bool, keep_weights: bool) -> None:
        """Measure the weights if the step is recorded, and keep them if an update will follow."""
        # Those whose gradients were taken within the backward pass have had their update already.
        updated = self.backward.taken if record else ()
        self._values = {name: row for name, row in self._values.items() if name in updated}
        self._measured = set()
        self._kept &= self._values.keys()
        if record:
            self.look_up()
            self.measure_weights(keep=keep_weights)

    @torch.no_grad()
    def measure_weights(self, *, keep: bool) -> None:
        """Measure the weights of the parameters that have not been measured in this step."""
        for name, parameter in self._parameters.items():
            if name not in self._values:
                self._values[name] = {"weight_norm": self._weight_norm(name, parameter, keep)}

    @torch.no_grad()
    def measure_gradients(
        self, names: Collection[str] | None, *, record: bool, keep_gradients: bool
    ) -> None:
        """Measure the gradients of `names`, or of all parameters, that were not in this step yet.

        `keep_gradients` keeps them for their cosine with those of the next step.
        """
        chosen = {
            name: self._all[name]
            for name in (self._all if names is None else names)
            if name not in self._measured and name in self._all and _is_trained(self._all[name])
        }
        if not self._measured:
            trained = chosen if names is None else self._parameters
            self._previous.begin_step(trained)
            if record and names is not None:
                self._measure_for_now(trained, chosen)
        self._measured |= chosen.keys()
        measured = self._previous.measure(chosen, compare=record, keep=keep_gradients)
        for name, (norm, cosine, previous_norm) in measured.items() if record else ():
            row = self._values.setdefault(name, {})
            row["gradient_norm"] = norm
            if cosine is not None:
                row["gradient_cosine"] = cosine
            if previous_norm is not None and name in self._sharded:
                row["previous_gradient_norm"] = previous_norm

    def let_go_of_gradients(self) -> None:
        """Keep no gradient of an earlier step: neither this step nor the next one is recorded."""
        self._previous.let_go()

    @torch.no_grad()
    def _keep_weight_of(self, name: str, parameter: Tensor) -> None:
        """Measure a weight when its first gradient arrives: a hook may be about to change it."""
        if name not in self._values:
            self._values[name] = {"weight_norm": self._weight_norm(name, parameter, keep=True)}

    def _measure_for_now(
        self, trained: Mapping[str, Parameter], chosen: Mapping[str, Parameter]
    ) -> None:
        """Take the norms of the others: their optimizer may not step, and they may be zeroed."""
        for name, parameter in trained.items():
            if name not in chosen and parameter.grad is not None:
                norm = norm_of(dense_gradient(parameter.grad))
                self._values.setdefault(name, {})["gradient_norm"] = norm

    @torch.no_grad()
    def after_update(self, *, received_as_left: bool) -> ParameterValues:
        """Return the measured values by parameter and quantity, without the unknown ones.

        With `received_as_left`, nothing shows what the optimizer receives: a gradient that is gone
        now counts as received as backward left it. One that a hook has taken always does.
        """
        self._previous.check_after_step(self._parameters)
        values, self._values = self._values, {}
        for name, norm in self.backward.norms.items():
            row = values.setdefault(name, {})
            row["backward_gradient_norm"] = norm
            if received_as_left or name in self.backward.taken:
                row.setdefault("gradient_norm", norm)
        for name in self._kept & values.keys():
            weight, kept = local_part(self._all[name].detach()), self._weights[name]
            if are_alike(weight, kept):  # else it was converted, moved or resized meanwhile
                square = cpu.square_distance(weight, kept)
                values[name]["update_norm"] = (
                    safe_norm(weight - kept) if square is None else math.sqrt(square)
                )
        return values

    def end_step(self) -> None:
        """Forget what belongs to the step that has ended."""
        self.backward.begin_step()
        self.gradients_were_missed = False
        self._measured = set()

    def state_dict(self) -> dict[str, Any]:
        """Return the gradients kept for the next step's cosine."""
        return self._previous.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the kept gradients, each on the device of its parameter."""
        gradients = {
            name: gradient.to(local_part(self._all[name].detach()).device)
            for name, gradient in state["gradients"].items()
            if name in self._all  # the model may have lost some since
        }
        self._previous.load_state_dict({**state, "gradients": gradients})

    def _weight_norm(self, name: str, parameter: Tensor, keep: bool) -> Tensor | float:
        """Return the norm of a parameter; if `keep`, also copy it, in the same read."""
        weight = local_part(parameter.detach())
        if not keep:
            return norm_of(weight)
        self._kept.add(name)
        # The buffers are reused: allocating new ones costs three times the copy.
        if name not in self._weights or not are_alike(weight, self._weights[name]):
            self._weights[name] = torch.empty_like(weight)
        kept = self._weights[name]
        square = cpu.copy_and_square_sum(weight, kept)
        if square is not None:
            return math.sqrt(square)
        kept.copy_(weight)
        return safe_norm(weight)


def _is_trained(parameter: Parameter) -> bool:
    # A lazy module makes its parameters at its first call.
    has_numbers = parameter.is_floating_point() or parameter.is_complex()
    return parameter.requires_grad and has_numbers and not is_lazy(parameter)
