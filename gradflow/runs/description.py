"""Reads what a run or an experiment says of itself: `run.json`, `experiment.json`."""

import json
from pathlib import Path
from typing import Any

from gradflow.errors import RunError
from gradflow.runs.schema import SCHEMA_VERSION


class NewerSchemaError(RunError):
    """A file was written by a newer gradflow than this one."""


def read_description(folder: Path, name: str) -> dict[str, Any]:
    """The content of the file `name` in `folder`.

    Raises `RunError` where it is missing, damaged, not gradflow's, or of a newer schema.
    """
    path = folder / name
    if not folder.is_dir():
        raise RunError(f"there is no folder {folder}")
    try:
        description: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{folder} is no run folder: it has no {name}") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    if not isinstance(description, dict) or not isinstance(description.get("schema_version"), int):
        raise RunError(f"{path} was not written by gradflow: it names no schema version")
    version = description["schema_version"]
    if version > SCHEMA_VERSION:
        raise NewerSchemaError(
            f"{path} has schema version {version}, this gradflow reads up to {SCHEMA_VERSION}: "
            "read it with a newer gradflow"
        )
    return description
