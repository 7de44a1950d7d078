"""The callable that is put on a module: idle between recorded steps, and left behind by copies."""

from collections.abc import Callable
from typing import Any, Protocol

import torch


class Observer(Protocol):
    """What a hook works for; while `record` is None there is nothing to do."""

    @property
    def record(self) -> object | None:
        """What is being filled, or None."""


class Hook:
    """Calls `function` with what the module gives it, while `observer` has a record to fill.

    A module's hooks are copied and pickled with it. Of this one nothing goes along: in the copy
    stands `inert`, so that neither the tracer nor what it has recorded is dragged with a model.

    `torch.compile` runs it as it stands, between two compiled pieces of the model.
    """

    __slots__ = ("_function", "_observer")

    def __init__(self, observer: Observer, function: Callable[..., None]) -> None:
        self._observer = observer
        self._function = function

    def _pass_on(self, *args: Any) -> None:
        if self._observer.record is not None:
            self._function(*args)

    __call__ = torch.compiler.disable(_pass_on)

    def __reduce__(self) -> str | tuple[Any, ...]:
        return _inert_hook, ()


def inert(*_: Any) -> None:
    """What stands for a hook of the tracer in a copy of the model: it does nothing."""


def _inert_hook() -> Callable[..., None]:
    return inert
