"""Checks values read from JSON against the type annotations of the options, and converts them."""

import reprlib
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from gradflow.errors import ConfigurationError

_MAX_SHOWN_CHARACTERS = 60
# Shortens the text of any value: the full text of a deep or huge one can be too much for Python.
_SHORTENER = reprlib.Repr()
_SHORTENER.maxlevel, _SHORTENER.maxstring = 3, _MAX_SHOWN_CHARACTERS
_SCALAR_TYPES: dict[Any, tuple[str, tuple[type, ...]]] = {
    bool: ("true or false", (bool,)),
    int: ("a whole number", (int,)),
    float: ("a number", (int, float)),
    str: ("text", (str,)),
    Path: ("text", (str,)),
    type(None): ("null", (type(None),)),
}


def convert_options(options: dict[str, Any], cls: type) -> dict[str, Any]:
    """Convert `options` from JSON to the types annotated in `cls`: tuples, paths, floats.

    Raises `ConfigurationError`, which names the option, if a value has another type.
    """
    hints = get_type_hints(cls)
    values = {}
    for name, value in options.items():
        try:
            values[name] = _convert(value, hints[name])
        except (TypeError, OverflowError):
            shown = _SHORTENER.repr(value)
            if len(shown) > _MAX_SHOWN_CHARACTERS:
                shown = f"{shown[:_MAX_SHOWN_CHARACTERS]}..."
            raise ConfigurationError(
                f"the configuration's {name} must be {_type_in_words(hints[name])}, not {shown}"
            ) from None
    return values


def _convert(value: Any, hint: Any) -> Any:
    """`value` converted to the type `hint`. Raises `TypeError` if it has another type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        fits = isinstance(value, str) and value in arguments
    elif origin in (Union, types.UnionType):
        return None if value is None else _convert(value, _other_than_none(arguments))
    elif origin is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError
        return tuple(_convert(item, arguments[0]) for item in value)
    else:
        fits = isinstance(value, _SCALAR_TYPES[hint][1])
        fits = fits and (hint is bool or not isinstance(value, bool))
    if not fits:
        raise TypeError
    return hint(value) if hint in (float, Path) else value


def _other_than_none(arguments: tuple[Any, ...]) -> Any:
    return next(argument for argument in arguments if argument is not type(None))


def _type_in_words(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return f"{_type_in_words(_other_than_none(arguments))} or null"
    if origin is tuple:
        return f"a list, each {_type_in_words(arguments[0])}"
    return _SCALAR_TYPES[hint][0]
