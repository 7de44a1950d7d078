"""Notices that modules or parameters were added to a model, replaced or removed."""

from collections.abc import Iterable
from itertools import chain
from operator import attrgetter, is_, methodcaller
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
        self._look: _Look | None = None
        self._modules: list[nn.Module] = []  # kept, so that no other can have their identity
        self.has_changed()

    def has_changed(self) -> bool:
        """Return whether the model has changed since this was last called."""
        if self._look is not None and self._look.holds():
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
        self._look = _Look(modules)
        return changed


class _Look:
    """What tells whether a walk through `modules` would find others, or other names."""

    def __init__(self, modules: list[nn.Module]) -> None:
        self._modules = modules
        self._children, self._names, self._lengths = _contents(modules)
        self._children = list(self._children)

    def holds(self) -> bool:
        """Whether all is as it was."""
        children, names, lengths = _contents(self._modules)
        return (
            lengths == self._lengths
            and names == self._names
            and all(map(is_, children, self._children))
        )


def _contents(modules: list[nn.Module]) -> tuple[Iterable[Any], list[str], list[int]]:
    """The children of modules, the names of children and parameters, and how many there are."""
    children: list[Any] = list(map(_CHILDREN, modules))
    parts = children + list(map(_PARAMETERS, modules))
    names: list[str] = list(chain.from_iterable(parts))
    return chain.from_iterable(map(_VALUES, children)), names, list(map(len, parts))
