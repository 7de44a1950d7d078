"""Notices that modules or parameters were added to a model, replaced or removed."""

from itertools import chain
from operator import attrgetter, methodcaller
from typing import Any

from torch import nn

_CHILDREN, _PARAMETERS = attrgetter("_modules"), attrgetter("_parameters")
_VALUES = methodcaller("values")


class Structure:
    """The modules of `model` and the names of their parameters, as they were last seen.

    Whether a parameter is still the same tensor is not compared: `torch.func.functional_call` puts
    others in their places while the model runs.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._seen: list[object] = []
        self._look: list[object] | None = None
        self._modules: list[nn.Module] = []  # kept, so that no other can have their identity
        self.has_changed()

    def has_changed(self) -> bool:
        """Return whether the model has changed since this was last called."""
        if self._look is not None and self._look == _look(self._modules):
            return False  # a walk through the modules would be as before
        modules, waiting, met = [], [self._model], set()
        seen: list[object] = []
        while waiting:
            module = waiting.pop()
            if id(module) in met:
                continue
            met.add(id(module))
            modules.append(module)
            children = module._modules
            seen += (id(module), *map(id, children.values()), *children, *module._parameters)
            waiting.extend(child for child in children.values() if child is not None)
        changed = seen != self._seen
        self._seen, self._modules = seen, modules
        self._look = _look(modules)
        return changed


def _look(modules: list[nn.Module]) -> list[object]:
    """What tells whether a walk through `modules` would find others, or other names."""
    children: list[Any] = list(map(_CHILDREN, modules))
    parameters: list[Any] = list(map(_PARAMETERS, modules))
    look: list[object] = list(map(id, chain.from_iterable(map(_VALUES, children))))
    look += chain.from_iterable(children)
    look += map(len, children)
    look += chain.from_iterable(parameters)
    look += map(len, parameters)
    return look
