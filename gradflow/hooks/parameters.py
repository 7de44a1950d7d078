"""Norms of parameters, their gradients and their updates, step by step."""

import torch
from torch import Tensor, nn

from gradflow.hooks.distributed import is_shard, local_part
from gradflow.hooks.fused import safe_norm


class ParameterRecorder:
    """Measures every parameter of `model` around an optimizer step.

    `before` is called when the step begins, with `recorded` (measure this one) and `followed` (the
    next one is measured, so keep the gradient for its cosine); `after` when it has ended. Nothing
    is read back from the device.
    """

    def __init__(self, model: nn.Module) -> None:
        self._parameters = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        self._sharded = [name for name, p in self._parameters.items() if is_shard(p)]
        self._weights: dict[str, Tensor] = {}
        self._previous: dict[str, Tensor] = {}
        self._previous_norm: dict[str, Tensor] = {}
        self._values: dict[str, dict[str, Tensor]] = {}

    @torch.no_grad()
    def before(self, *, recorded: bool, followed: bool) -> None:
        """Take what is known when the optimizer's step begins."""
        gradients = self._gradients() if recorded or followed else {}
        gradient_norms = _norms(gradients)
        self._values = self._measure(gradients, gradient_norms) if recorded else {}
        if followed:
            _copy_into(self._previous, gradients)
            self._previous_norm = gradient_norms
        else:
            self._previous_norm = {}

    def keep_weights(self) -> None:
        """Keep a copy of the weights, from which `after` computes the update."""
        _copy_into(self._weights, self._weights_now())

    @torch.no_grad()
    def after(self, *, updated: bool) -> dict[str, dict[str, Tensor]]:
        """The measured values, 0-d tensors by parameter and quantity; unknown ones are left out.

        `updated` says that `keep_weights` was called when the step began.
        """
        values, self._values = self._values, {}
        if updated:
            for name, row in values.items():
                change = local_part(self._parameters[name].detach()) - self._weights[name]
                row["update_norm"] = safe_norm(change)
        return values

    def _gradients(self) -> dict[str, Tensor]:
        gradients = {}
        for name, parameter in self._parameters.items():
            if parameter.grad is not None:
                gradient = local_part(parameter.grad.detach())
                gradients[name] = gradient.to_dense() if gradient.is_sparse else gradient
        return gradients

    def _measure(
        self, gradients: dict[str, Tensor], gradient_norms: dict[str, Tensor]
    ) -> dict[str, dict[str, Tensor]]:
        values = {name: {"weight_norm": norm} for name, norm in _norms(self._weights_now()).items()}
        for name, gradient in gradients.items():
            values[name]["gradient_norm"] = gradient_norms[name]
            if name in self._previous_norm:
                product = torch.dot(gradient.flatten(), self._previous[name].flatten())
                norms = gradient_norms[name] * self._previous_norm[name]
                # 0 / 0 is nan: a gradient that is exactly zero has no direction.
                values[name]["gradient_cosine"] = product / norms
                values[name]["previous_gradient_norm"] = self._previous_norm[name]
        for name in self._sharded:
            values[name]["sharded"] = torch.ones(())
        return values

    def _weights_now(self) -> dict[str, Tensor]:
        return {name: local_part(p.detach()) for name, p in self._parameters.items()}


def _norms(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: safe_norm(tensor) for name, tensor in tensors.items()}


def _copy_into(store: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    # Buffers are kept and refilled: allocating them anew costs three times the copy.
    for name, tensor in tensors.items():
        if name in store:
            store[name].copy_(tensor)
        else:
            store[name] = tensor.clone()
