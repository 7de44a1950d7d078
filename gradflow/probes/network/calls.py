"""Records the inputs of modules in one pass, and the gradients of a scalar at their outputs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradflow.probes.probe import NotMeasurableError


@dataclass(eq=False)
class ModuleCall:
    """One call of a module.

    Fields:
        name: of the module; its second call in one pass is `name#2`.
        module: the module itself.
        inputs: its only positional argument, [N, ...], detached.
        gradient: of the scalar with respect to the module's output, [N, ...]; zeros if the scalar
            does not depend on it.
    """

    name: str
    module: nn.Module
    inputs: Tensor
    gradient: Tensor


def record_calls(
    modules: Mapping[str, nn.Module], scalar: Callable[[], Tensor]
) -> list[ModuleCall]:
    """The calls of `modules` during `scalar()` and its backward pass, in order of execution.

    Hooks on the output tensors read the gradients, before a later module changes the outputs in
    place. So an in-place ReLU after a module does no harm. Gradients of parameters accumulate as
    usual.

    Raises `NotMeasurableError` for a module that does not turn one tensor into one tensor.
    """
    calls: list[ModuleCall] = []
    times: dict[str, int] = {}

    def hook_for(name: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def hook(module: nn.Module, arguments: tuple[object, ...], output: object) -> None:
            inputs = arguments[0] if len(arguments) == 1 else None
            if not isinstance(inputs, Tensor) or not isinstance(output, Tensor):
                raise NotMeasurableError(f"{name} does not turn one tensor into one tensor")
            times[name] = times.get(name, 0) + 1
            number = times[name]
            own_name = name if number == 1 else f"{name}#{number}"
            call = ModuleCall(own_name, module, inputs.detach(), torch.zeros_like(output))
            calls.append(call)
            if output.requires_grad:
                output.register_hook(lambda gradient: setattr(call, "gradient", gradient))

        return hook

    handles = [module.register_forward_hook(hook_for(name)) for name, module in modules.items()]
    try:
        scalar().backward()
    finally:
        for handle in handles:
            handle.remove()
    return calls


def modules_with_parameters(model: nn.Module) -> dict[str, nn.Module]:
    """By name, the modules of `model` with parameters of their own; `model` goes by its class."""
    return {
        name or type(module).__name__: module
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    }
