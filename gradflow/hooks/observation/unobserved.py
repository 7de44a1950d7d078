"""Which of the modules to observe were not, each with the reason that applies, and what to do."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor

from gradflow.hooks.layers import LayerTable, why_not_observed
from gradflow.hooks.observation.forward_passes import EVALUATION, OTHER_THREAD, WITHOUT_GRADIENTS
from gradflow.hooks.residual.graph import tensors_in

_NEVER = "did not run"
_NO_MODULE = "did not run, yet the model's parameters have gradients"
_OWN_CALL = "ran past torch's Module.__call__, which the class {} replaces"
_TRANSFORM = "ran under a torch.func transform"
# What to do; a reason that is not here speaks of the layer's output.
_ADVICE = {
    EVALUATION: 'call model.train(), or give the tracer modes="all"',
    WITHOUT_GRADIENTS: "run the forward pass of the training with gradients enabled",
    OTHER_THREAD: "run all forward passes of a step in one thread",
    _NEVER: "call the model that the tracer was given, not a copy of it",
    _NO_MODULE: "compiled or exported code has no hooks: leave the compiler's stance as the "
    "tracer sets it in recorded steps, and train the model that was exported from",
    _TRANSFORM: "call the model outside of the transform",
}
_OUTPUT_ADVICE = (
    "the tracer reads tensors of floating-point or complex numbers, also in tuples, lists, "
    "mappings and dataclasses"
)
_CALL_ADVICE = "torch runs no hooks then, so that the tracer cannot observe them"
_MOST_NAMES = 3


class UnobservedLayers:
    """Notes why a module's call was left out, and tells it of those that were never observed.

    Args:
        model: the whole model.
        observed: returns name, module and role of each module to observe now.
        layers: the table of those that were observed.
    """

    def __init__(
        self,
        model: nn.Module,
        observed: Callable[[], Sequence[tuple[str, nn.Module, str]]],
        layers: LayerTable,
    ) -> None:
        self._model = model
        self._observed = observed
        self._layers = layers
        self._noted: dict[str, str] = {}

    def note(self, name: str, reason: str | None) -> None:
        """Note why a call of the module `name` was left out."""
        if reason is not None:
            self._noted[name] = reason

    def by_reason(self) -> dict[str, list[str]]:
        """Return the names of the modules that were never observed, by the reason."""
        found: dict[str, list[str]] = {}
        for name, module, _ in self._observed():
            if name not in self._layers:
                reason = self._noted.get(name) or self._why_not_run(module)
                found.setdefault(reason, []).append(name)
        return found

    def sentence(self) -> str:
        """Say why modules were not observed, and what to do: one part for each reason."""
        return "; ".join(
            f"{_names(names)} {reason} ({_advice(reason)})"
            for reason, names in self.by_reason().items()
        )

    def _why_not_run(self, module: nn.Module) -> str:
        kind = type(module)
        if kind.__call__ is not nn.Module.__call__:
            return _OWN_CALL.format(kind.__name__)
        trained = any(parameter.grad is not None for parameter in self._model.parameters())
        return _NO_MODULE if trained and not self._noted and not self._layers else _NEVER


def why_unobservable(output: Any) -> str:
    """Say what about a layer's output keeps it from being observed."""
    tensor = next(tensors_in(output), None)
    if isinstance(tensor, Tensor) and is_functorch_wrapped_tensor(tensor):
        return _TRANSFORM
    return f"returned {why_not_observed(output)}"


def why_unreadable(tensor: Tensor) -> str:
    """Say that a tensor's class or dtype lacks what statistics need."""
    return f"returned {type(tensor).__name__} of {tensor.dtype}"


def _advice(reason: str) -> str:
    if reason.startswith(_OWN_CALL.split("{", maxsplit=1)[0]):
        return _CALL_ADVICE
    return _ADVICE.get(reason, _OUTPUT_ADVICE)


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMES])
    more = len(names) - _MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown
