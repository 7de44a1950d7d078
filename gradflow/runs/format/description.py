"""Reads the descriptions of runs and experiments: `run.json`, `experiment.json`."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradflow.errors import RunError
from gradflow.runs.format.limits import (
    LARGEST_DESCRIPTION,
    LONGEST_NAME,
    read_bounded,
    require_inside,
    require_valid_path,
)
from gradflow.runs.format.schema import SCHEMA_VERSION

_DEEPEST = 32
_LONGEST_NUMBER = 100
# Former names, up to schema version 2, of options and of values of the option `probes`.
_CURRENT_NAMES = {"shortcut_scale": "skip_scale", "shortcut_scaling": "skip_scaling"}


class NewerSchemaError(RunError):
    """A file was written by a newer gradflow than this one."""


def read_description(folder: Path, name: str) -> dict[str, Any]:
    """The content of the file `name` in `folder`.

    Raises `RunError` if the file is missing, damaged, of a newer schema, or not written by
    gradflow: a link out of the folder, too large, nested too deeply, or with an entry of the wrong
    type.
    """
    path = folder / name
    require_valid_path(folder)
    if not folder.is_dir():
        raise RunError(f"there is no folder {folder}")
    require_inside(folder, path)
    try:
        description = _parse(read_bounded(path, LARGEST_DESCRIPTION))
    except FileNotFoundError as error:
        raise RunError(f"{folder} is not a run folder: it has no {name}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    if not isinstance(description, dict) or not _is_integer(description.get("schema_version")):
        raise RunError(f"{path} was not written by gradflow: it names no schema version")
    version = description["schema_version"]
    if version > SCHEMA_VERSION:
        raise NewerSchemaError(
            f"{path} has schema version {version}, but this gradflow reads up to {SCHEMA_VERSION}: "
            "read it with a newer gradflow"
        )
    for entry, (words, fits) in _ENTRIES.items():
        value = description.get(entry)
        if value is not None and not fits(value):
            raise RunError(f"{path} was not written by gradflow: its {entry} is not {words}")
    if description.get("configuration"):
        description["configuration"] = _with_current_names(description["configuration"])
    return description


def _with_current_names(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a training, with the former names replaced by the current ones."""
    present = {_CURRENT_NAMES.get(name, name): value for name, value in options.items()}
    probes = present.get("probes")
    if isinstance(probes, list):
        present["probes"] = [
            _CURRENT_NAMES.get(one, one) if isinstance(one, str) else one for one in probes
        ]
    return present


def _parse(content: bytes) -> Any:
    """The JSON value in `content`; raises `ValueError` or `RecursionError` if it is not valid."""
    description = json.loads(
        content.decode(), parse_constant=_no_number, parse_float=_number, parse_int=_whole_number
    )
    level, depth = [description], 0
    while level:
        depth += 1
        if depth > _DEEPEST:
            raise ValueError(f"its values are nested more than {_DEEPEST} levels deep")
        inner = [value for value in level if isinstance(value, dict | list)]
        level = [
            below
            for value in inner
            for below in (value.values() if isinstance(value, dict) else value)
        ]
    # An escape may be half of a surrogate pair, which could be neither shown nor written again.
    json.dumps(description, ensure_ascii=False).encode()
    return description


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a number in JSON")


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:_LONGEST_NUMBER]} is too large for a number")
    return value


def _whole_number(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"a number has more than {_LONGEST_NUMBER} digits")
    return int(text)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_seed(value: Any) -> bool:
    return _is_integer(value) and -(2**63) <= value < 2**64


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_NAME


def _is_folder_name(value: Any) -> bool:
    """Whether `value` is the plain name of a file or folder, without a path."""
    if not isinstance(value, str) or value in ("", ".", "..") or "\0" in value:
        return False
    return Path(value).name == value


def _is_list(of: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(of, value))


def _is_list_of_folders(value: Any) -> bool:
    return _is_list(_is_folder_name)(value) and len(set(value)) == len(value)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_plain(value: Any) -> bool:
    return _is_name(value) or isinstance(value, int | float)


_A_NAME = f"text of at most {LONGEST_NAME:,} characters"
# The entries that gradflow reads. Users may add others of any type.
_ENTRIES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "network": (_A_NAME, _is_name),
    "seed": ("a whole number of 64 bits", _is_seed),
    "classes": (f"a list, each {_A_NAME}", _is_list(_is_plain)),
    "configuration": ("an object", _is_object),
    "status": (_A_NAME, _is_name),
    "created": (_A_NAME, _is_name),
    "runs": ("a list of names of folders within it, each once", _is_list_of_folders),
    "resumed": ("a list of objects", _is_list(_is_object)),
    "set_aside": ("a list of objects", _is_list(_is_object)),
    "first_nonfinite": ("an object", _is_object),
    "sinks": ("a list of objects", _is_list(_is_object)),
}
