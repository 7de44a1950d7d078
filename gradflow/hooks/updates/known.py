"""Which parameters a model has now, and which of them are trained.

Models grow and shrink, and layers are frozen and thawed. To go through the modules of a large model
takes long, so it is done again only if the model no longer looks as it did then: another module in
a place, another parameter, another name.
"""

from collections.abc import Sequence
from itertools import chain
from operator import attrgetter, is_, methodcaller
from typing import Any

from torch import nn
from torch.nn import Parameter
from torch.nn.parameter import is_lazy

from gradflow.hooks.processes.tensors import is_sharded
from gradflow.hooks.wrappers import named_parameters

_PARTS = attrgetter("_parameters", "_modules")
_VALUES = methodcaller("values")
_REQUIRES_GRAD = attrgetter("requires_grad")


class Trained:
    """The parameters trained now, in order: `tensors` by `names`."""

    def __init__(
        self, parameters: dict[str, Parameter], names: tuple[str, ...] | None = None
    ) -> None:
        self.by_name = parameters
        self.names = names or tuple(parameters)
        self.tensors = list(parameters.values())


class KnownParameters:
    """The parameters of `model`, as they were last looked up.

    Fields:
        all: by name.
        names, places: the names in order, and the place of each.
        sharded: the names of those of which this process holds a shard.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.all: dict[str, Parameter] = {}
        self.names: tuple[str, ...] = ()
        self.places: dict[str, int] = {}
        self._modules: list[nn.Module] = []
        self._tensors: list[Parameter] = []
        self._contents: Contents | None = None
        self._are_lazy = False
        self._states: tuple[list[Any], list[type]] | None = None
        self._trained = Trained({})
        self._go_through()
        self.sharded = {name for name, one in self.all.items() if is_sharded(one)}

    def look_up(self) -> bool:
        """Look up the parameters of the model; return whether it has changed since."""
        # FSDP2 has other tensors in place of its shards while the model runs.
        if self.sharded or (self._contents is not None and self._contents.are_those_now()):
            return False
        before = self.all
        self._go_through()
        return before.keys() != self.all.keys() or any(
            before[name] is not one for name, one in self.all.items()
        )

    def trained(self) -> Trained:
        """The parameters trained now: the same object as before if they are the same."""
        # A lazy module changes the class of its parameters at its first call.
        kinds = list(map(type, self._tensors)) if self._are_lazy else []
        states = list(map(_REQUIRES_GRAD, self._tensors)), kinds
        if states != self._states:
            self._states = states
            chosen = {name: one for name, one in self.all.items() if is_trained(one)}
            self._trained = Trained(chosen, self.names if len(chosen) == len(self.names) else None)
        return self._trained

    def _go_through(self) -> None:
        self.all = dict(named_parameters(self._model))
        self.names = tuple(self.all)
        self.places = {name: place for place, name in enumerate(self.names)}
        self._tensors = list(self.all.values())
        self._modules = list(self._model.modules())
        self._states = None
        self._are_lazy = any(map(is_lazy, self._tensors))
        usual = all(map(_is_usual, set(map(type, self._modules))))
        self._contents = Contents.of(self._modules) if usual else None


class Contents:
    """The parameters and modules in the places of `modules`, all of which are kept."""

    def __init__(self, modules: list[nn.Module], parts: Sequence[Any]) -> None:
        self._modules = modules
        self._lengths = list(map(len, parts))
        self._names: list[str] = list(chain.from_iterable(parts))
        self._objects: list[Any] = list(chain.from_iterable(map(_VALUES, parts)))

    @classmethod
    def of(cls, modules: list[nn.Module]) -> "Contents | None":
        """Return the contents of modules now; None if one does not have them where torch does."""
        parts = _parts_of(modules)
        return None if parts is None else cls(modules, parts)

    def are_those_now(self) -> bool:
        """Whether no parameter or module has changed places since."""
        parts = _parts_of(self._modules)
        return (
            parts is not None
            and list(map(len, parts)) == self._lengths
            and list(chain.from_iterable(parts)) == self._names
            and all(map(is_, chain.from_iterable(map(_VALUES, parts)), self._objects))
        )


def _parts_of(modules: Sequence[nn.Module]) -> Sequence[Any] | None:
    try:
        return list(chain.from_iterable(map(_PARTS, modules)))
    except AttributeError:
        return None


def is_trained(parameter: Parameter) -> bool:
    """Whether a parameter has numbers, and training changes them."""
    # A lazy module makes its parameters at its first call; before, they can be asked for little.
    if not parameter.requires_grad or is_lazy(parameter) or parameter.is_inference():
        return False
    return parameter.is_floating_point() or parameter.is_complex()


def _is_usual(kind: type[nn.Module]) -> bool:
    """Whether a class of modules has its parameters and modules where torch has them."""
    return all(
        getattr(kind, name) is getattr(nn.Module, name)
        for name in ("parameters", "named_parameters", "modules", "named_modules", "_named_members")
    )
