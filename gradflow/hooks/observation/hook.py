"""The callable that is put on a module: idle between recorded steps, and left behind by copies."""

from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import torch


class Watcher(Protocol):
    """What a hook works for; while `record` is None there is nothing to do."""

    @property
    def record(self) -> object | None:
        """What is being filled, or None."""


class Hook:
    """Calls `function` with what the module gives it, while `watcher` has a record to fill.

    A module's hooks are copied and pickled with it. Of this one nothing goes along: in the copy
    stands `inert`, so that neither the tracer nor what it has recorded is dragged with a model.

    `torch.compile` runs it as it stands, between two compiled pieces of the model.
    """

    __slots__ = ("_function", "_watcher")

    def __init__(self, watcher: Watcher, function: Callable[..., None]) -> None:
        self._watcher = watcher
        self._function = function
        _keep_out_of_compiled_graphs()

    def __call__(self, *args: Any) -> None:
        """Call the function, while there is a record to fill."""
        if self._watcher.record is not None:
            self._function(*args)

    def __reduce__(self) -> str | tuple[Any, ...]:
        return _inert_hook, ()


@cache
def _keep_out_of_compiled_graphs() -> None:
    """Disable compiling of the hooks' calls; with the first hook, for it loads `torch._dynamo`.

    That takes more than a second, unless an optimizer has loaded it already.
    """
    Hook.__call__ = torch.compiler.disable(Hook.__call__)  # type: ignore[method-assign]


def inert(*_: Any) -> None:
    """What stands for a hook of the tracer in a copy of the model: it does nothing."""


def _inert_hook() -> Callable[..., None]:
    return inert
