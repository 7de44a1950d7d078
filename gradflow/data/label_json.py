"""Reads lines of JSON that list image files and their labels, as Hugging Face's metadata.jsonl."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from gradflow.data.notes import Notes
from gradflow.errors import DataError

JSON_SUFFIXES = frozenset({".jsonl"})
# In bytes. A longer line is not the description of one image, and would fill the memory.
_LONGEST_LINE = 1 << 20


def json_rows(
    table: Path, columns: Mapping[str, str], notes: Notes
) -> Iterator[tuple[int, str, str, str]]:
    """The line, file name, label and side of each object in `table`.

    `columns` names the entries image (otherwise file_name), label (otherwise label) and split
    (otherwise none is read). Text and whole numbers are values; a missing or other one is empty.

    Raises:
        DataError: The file cannot be read, a line is too long, or the first object lacks an entry.
    """
    wanted = [columns.get("image", "file_name"), columns.get("label", "label")]
    wanted.append(columns.get("split", ""))
    checked = False
    try:
        with table.open("rb") as file:
            line = 0
            while content := file.readline(_LONGEST_LINE):
                line += 1
                if len(content) == _LONGEST_LINE:
                    raise DataError(
                        f"{table} cannot be read: line {line} has more than {_LONGEST_LINE:,} bytes"
                    )
                if not content.strip():
                    continue
                row = _object(content)
                if row is None:
                    notes.bad(
                        f"lines of {table} that are no JSON object",
                        f"line {line}",
                        f"{table} has no JSON object in line {line}; correct it",
                    )
                    continue
                if not checked:
                    _require_columns(table, wanted, row)
                    checked = True
                filename, label, split = (_text(row.get(name)) for name in wanted)
                yield line, filename, label, split
    except OSError as error:
        raise DataError(f"{table} cannot be read ({error.strerror}); check it") from error


def no_column(table: Path, column: str, existing: Iterable[str]) -> DataError:
    """The error that `table` lacks `column`, with the option that says which column to take."""
    return DataError(
        f"{table} has no column {column!r}, it has {', '.join(existing)}; "
        "say which to take with --columns image=NAME label=NAME"
    )


def _require_columns(table: Path, wanted: list[str], row: dict[str, object]) -> None:
    for name in filter(None, wanted):
        if name not in row:
            raise no_column(table, name, row)


def _object(content: bytes) -> dict[str, object] | None:
    try:
        row = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _text(value: object) -> str:
    """`value` as text; empty if it is neither text nor a whole number, or cannot be written."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    try:
        text = str(value).strip()
        text.encode()
    except ValueError:  # half of a surrogate pair; a number of too many digits
        return ""
    return text
