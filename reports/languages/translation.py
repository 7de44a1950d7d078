"""Says a whole `Document` in another language."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from reports.elements import Document
from reports.languages.catalogue import ENGLISH, Catalogue, catalogue_of

_Part = TypeVar("_Part")

# Link targets, data, and what is copied: the same in every language.
_KEPT = {
    "anchor", "data", "link", "commands", "command", "version", "language", "created", "length",
    "picture", "narrow", "mark", "longer", "time", "verdict", "sign", "run", "references",
    "sources",
}  # fmt: skip
# Names may stand here, and a name is not looked up, whatever it is.
_NAMES = {"network", "rows", "positions", "names", "texts"}


def in_language(document: Document, language: str) -> Document:
    """`document` in `language`; a text without a translation stays English.

    Raises `ConfigurationError` if the language has no catalogue.
    """
    if language == ENGLISH:
        return document
    catalogue = catalogue_of(language)
    return replace(_translated(document, catalogue), language=language)


def _translated(part: _Part, catalogue: Catalogue) -> _Part:
    changes: dict[str, Any] = {}
    for one in fields(part):  # type: ignore[arg-type]
        value = getattr(part, one.name)
        if one.name not in _KEPT:
            say = catalogue.say if one.name in _NAMES else catalogue.say_whole
            if one.name == "columns":
                say = catalogue.say_parts
            changes[one.name] = _value(value, catalogue, say)
    return replace(part, **changes)  # type: ignore[type-var]


def _value(value: Any, catalogue: Catalogue, say: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return say(value)
    if isinstance(value, tuple):
        return tuple(_value(one, catalogue, say) for one in value)
    if isinstance(value, dict):
        return {key: _value(one, catalogue, say) for key, one in value.items()}
    return _translated(value, catalogue) if is_dataclass(value) else value
