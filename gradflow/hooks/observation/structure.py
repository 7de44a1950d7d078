"""Notices that modules or parameters were added to a model, replaced or removed."""

from torch import nn


class Structure:
    """The modules of `model` and the names of their parameters, as they were last seen.

    Whether a parameter is still the same tensor is not compared: `torch.func.functional_call` puts
    others in their places while the model runs.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._seen: list[object] = []
        self._modules: list[nn.Module] = []  # kept, so that no other can have their identity
        self.has_changed()

    def has_changed(self) -> bool:
        """Return whether the model has changed since this was last called."""
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
        return changed
