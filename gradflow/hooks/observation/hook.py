"""The callable that is registered as a hook: idle between recorded steps, dropped from copies."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.compiler import is_compiling
from torch.utils.hooks import RemovableHandle


class Observer(Protocol):
    """The object that a hook works for; if its `record` is None, the hook does nothing.

    It is that of the present step; None if the step is not recorded.
    """

    record: Any


class LeftOutOfCopies:
    """Calls `function` with the hook's arguments; in a copy of the module it does nothing.

    A module's hooks are copied and pickled with the module. This hook becomes `inert` in the copy,
    so that a copied model contains neither the tracer nor its records.
    """

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> None:
        """Call the function."""
        self._function(*args)

    def __reduce__(self) -> str | tuple[Any, ...]:
        return _inert_hook, ()


class Hook(LeftOutOfCopies):
    """Calls `function` with the hook's arguments while `observer` has a record.

    Compiled code contains nothing of it, and the graph does not break here.
    """

    __slots__ = ("_observer",)

    def __init__(self, observer: Observer, function: Callable[..., None]) -> None:
        super().__init__(function)
        self._observer = observer

    def __call__(self, *args: Any) -> None:
        """Call the function if there is a record to fill."""
        if is_compiling():
            return
        if self._observer.record is not None:
            self._function(*args)


class ModuleHooks:
    """The hooks of one kind on several modules, which may come and go while the model trains."""

    def __init__(self) -> None:
        # The module is kept, so that no other can have its identity.
        self._handles: dict[tuple[str, int], tuple[nn.Module, list[RemovableHandle]]] = {}

    def keep_on(
        self,
        modules: Iterable[tuple[str, nn.Module]],
        register: Callable[[str, nn.Module], list[RemovableHandle]],
    ) -> None:
        """Have hooks on `modules`, given with their names, and no others.

        `register` puts them on a module that has none yet.
        """
        wanted = {(name, id(module)): module for name, module in modules}
        for key in self._handles.keys() - wanted.keys():
            self._remove(key)
        for (name, identity), module in wanted.items():
            if (name, identity) not in self._handles:
                self._handles[name, identity] = (module, register(name, module))

    def removed_by_others(self) -> list[str]:
        """The names of the modules from which other code has taken a hook."""
        return [
            name
            for (name, _), (_, handles) in self._handles.items()
            if any(handle.id not in (handle.hooks_dict_ref() or ()) for handle in handles)
        ]

    def remove(self) -> None:
        """Take all hooks off."""
        for key in list(self._handles):
            self._remove(key)

    def _remove(self, key: tuple[str, int]) -> None:
        for handle in self._handles.pop(key)[1]:
            handle.remove()


def hook_on(tensor: Tensor, node: Node, hook: Callable[[Tensor], None]) -> None:
    """Call `hook` with the gradient of a plain tensor, which `node` has computed."""
    hooks: dict[int, Any] | None = tensor._backward_hooks
    if hooks is None:
        hooks = tensor._backward_hooks = OrderedDict()
        node._register_hook_dict(tensor)
    hooks[RemovableHandle.next_id] = hook
    RemovableHandle.next_id += 1


def inert(*_: Any) -> None:
    """Do nothing: this replaces the hooks of the tracer in a copy of the model."""


def _inert_hook() -> Callable[..., None]:
    return inert
