"""What wraps a model or its modules without being a layer, and names that leave the wrappers out.

So a compiled model has the layers and parameters of the same model uncompiled.
"""

from collections.abc import Iterator

from torch import nn
from torch.nn import Parameter

# By the wrapper's class, the attribute that holds the module; by name, so that nothing is imported.
_INNER = {"OptimizedModule": "_orig_mod", "CheckpointWrapper": "_checkpoint_wrapped_module"}
_ATTRIBUTES = frozenset(_INNER.values())


def unwrapped(model: nn.Module) -> tuple[nn.Module, tuple[nn.Module, ...]]:
    """Return the user's model, and the wrappers around it, outermost first.

    Wrappers are those of `torch.compile`, of activation checkpointing, and of
    `DistributedDataParallel`.
    """
    wrappers = []
    while (inner := _inner(model)) is not None:
        wrappers.append(model)
        model = inner
    return model, tuple(wrappers)


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the name and module of every module of `model`, without wrappers."""
    for name, module in model.named_modules():
        if type(module).__name__ not in _INNER:
            yield without_wrappers(name), module


def named_parameters(model: nn.Module) -> Iterator[tuple[str, Parameter]]:
    """Yield the name and parameter of every parameter of `model`, without wrappers in the name."""
    for name, parameter in model.named_parameters():
        yield without_wrappers(name), parameter


def without_wrappers(name: str) -> str:
    """Return the qualified name of a module or parameter without the wrappers around its parts."""
    if "_orig_mod" not in name and "_checkpoint_wrapped_module" not in name:
        return name
    return ".".join(part for part in name.split(".") if part not in _ATTRIBUTES)


def _inner(module: nn.Module) -> nn.Module | None:
    if isinstance(module, nn.parallel.DistributedDataParallel):
        inner: nn.Module = module.module
        return inner
    attribute = _INNER.get(type(module).__name__)
    return None if attribute is None else getattr(module, attribute)
