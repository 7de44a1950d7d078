"""Selects the modules to observe: all that have a role, or those that the user chooses."""

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from torch import nn

from gradflow.errors import TracingError
from gradflow.hooks.layers import observed_modules, role_of
from gradflow.hooks.wrappers import named_modules

if TYPE_CHECKING:
    import pandas as pd

Predicate = Callable[[str, nn.Module], bool]
Selector = str | type[nn.Module] | Predicate
Selection = Selector | Iterable[Selector]

_WILDCARDS = frozenset("*?[")


def select_modules(
    model: nn.Module, observe: Selection | None = None
) -> list[tuple[str, nn.Module, str]]:
    """Return name, module and role of every module of `model` to observe.

    `observe` is one selector or several; a module is observed if any of them selects it. A selector
    is a shell pattern (`layer1.*`), which selects among the modules observed by default; the exact
    name of any module; a module class, which selects all its instances; or a function of name and
    module. None selects the default: every module with a role.

    Raises `TracingError` if nothing is selected, or a selector has another type.
    """
    default = list(observed_modules(model))
    if observe is None:
        return default
    selectors = selectors_of(observe)
    roles = {name: role for name, _, role in default}
    chosen = [
        (name, module, roles.get(name) or role_of(module) or "other")
        for name, module in named_modules(model)
        if name and any(chooses(one, name, module, by_default=name in roles) for one in selectors)
    ]
    if not chosen:
        raise TracingError(
            f"observe={selectors!r} chooses no module of the model: "
            "gradflow.layers(model) shows the names of its layers"
        )
    return chosen


def selectors_of(selection: Selection) -> list[Selector]:
    """Return the single selectors of a selection."""
    if isinstance(selection, str | type) or not isinstance(selection, Iterable):
        return [selection]
    return list(selection)


def layers(model: nn.Module, observe: Selection | None = None) -> "pd.DataFrame":
    """Return the layers that a tracer of `model` would observe, as a data frame.

    Its columns are layer, type, role and parameters. It has one row per module, in the order of
    `named_modules`; the table `layers` of a run is in order of execution and has a row for every
    call. `observe` is that of `Tracer`.
    """
    import pandas as pd  # noqa: PLC0415 - takes half a second, and a tracer needs none of it

    rows = select_modules(model, observe)
    return pd.DataFrame(
        {
            "layer": [name for name, _, _ in rows],
            "type": [type(module).__name__ for _, module, _ in rows],
            "role": [role for _, _, role in rows],
            "parameters": [sum(p.numel() for p in m.parameters()) for _, m, _ in rows],
        }
    )


def chooses(selector: object, name: str, module: nn.Module, *, by_default: bool = True) -> bool:
    """Return whether `selector` selects `module`; a pattern does so only if it is `by_default`.

    Raises `TracingError` if it is no selector.
    """
    if isinstance(selector, str):
        if not _WILDCARDS & set(selector):
            return name == selector
        return by_default and fnmatchcase(name, selector)
    if isinstance(selector, type):
        return isinstance(module, selector)
    if callable(selector):
        return bool(selector(name, module))
    raise TracingError(
        f"observe= and groups= take name patterns, module classes and functions of (name, module), "
        f"not {selector!r}"
    )
