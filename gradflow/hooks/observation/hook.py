"""The callable that is registered as a hook: idle between recorded steps, dropped from copies."""

from collections.abc import Callable
from typing import Any, Protocol

import torch


class Observer(Protocol):
    """The object that a hook works for; if its `record` is None, the hook does nothing."""

    @property
    def record(self) -> object | None:
        """The record of the present step, or None if the step is not recorded."""


class Hook:
    """Calls `function` with the hook's arguments while `observer` has a record.

    A module's hooks are copied and pickled with the module. This hook becomes `inert` in the copy,
    so that a copied model contains neither the tracer nor its records.

    `torch.compile` runs this hook uncompiled, between two compiled parts of the model.
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
    """Do nothing: this replaces the hooks of the tracer in a copy of the model."""


def _inert_hook() -> Callable[..., None]:
    return inert
