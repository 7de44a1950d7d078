"""Reads the CSV that lists image files and their labels, row by row."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path, PureWindowsPath

from gradflow.errors import DataError
from gradflow.runs.format.limits import LONGEST_NAME

COLUMNS = ("filename", "label")
# Spreadsheets write semicolons in countries where the comma is the decimal sign.
_DELIMITERS = (",", ";", "\t")
# In characters. A longer line is not a list of file names, and would fill the memory.
_LONGEST_LINE = 1 << 20
_PATH_CHARACTERS = frozenset("\\/:")


@dataclass
class LabelledRow:
    """The label of one file, and the number of rows that give it."""

    label: str
    rows: int = 1


def read_labels(table: Path) -> dict[str, LabelledRow]:
    """The CSV's labels by file name, with forward slashes, in the order of their first rows.

    The CSV is UTF-8, with or without a byte-order mark. Columns are separated by commas, semicolons
    or tabs; those other than filename and label are ignored. Every field is read as text. A file
    listed several times with one label counts once.

    Raises:
        DataError: The file is not such a CSV, gives a file two labels, or names a file outside the
            CSV's folder.
    """
    labels: dict[str, LabelledRow] = {}
    names: dict[str, str] = {}
    for line, raw, label in _rows(table):
        if not raw or not label:
            raise DataError(f"{table} has no filename or no label in line {line}; complete it")
        if len(label) > LONGEST_NAME:
            raise DataError(
                f"{table} has a label of {len(label):,} characters in line {line}, more than the "
                f"{LONGEST_NAME:,} that a class may have; shorten it"
            )
        name = names.get(raw) or names.setdefault(raw, _inner_path(raw, table))
        known = labels.get(name)
        if known is None:
            labels[name] = LabelledRow(label)
        elif known.label != label:
            raise DataError(
                f"{table} gives {name} two labels, {known.label} and {label}; keep one of them"
            )
        else:
            known.rows += 1
    if not labels:
        raise DataError(f"{table} lists no images; add rows of filename,label")
    return labels


def _rows(table: Path) -> Iterator[tuple[int, str, str]]:
    """The last line of each row, its filename and its label."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            header, delimiter = _header(file, table)
            places = [_place(header, name, table) for name in COLUMNS]
            reader = csv.reader(_lines(file), delimiter=delimiter, strict=True)
            next(reader)
            for row in reader:
                if len(row) > len(header):
                    raise DataError(
                        f"{table} has {len(row)} fields in line {reader.line_num}, but "
                        f"{len(header)} columns; put names that hold {delimiter!r} in quotes"
                    )
                if row:
                    filename, label = (row[at].strip() if at < len(row) else "" for at in places)
                    yield reader.line_num, filename, label
    except UnicodeDecodeError as error:
        raise DataError(f"{table} cannot be read as a CSV: {_NOT_UTF8}") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{table} cannot be read as a CSV: {_one_line(error)}") from error


_NOT_UTF8 = "its text is not valid UTF-8; save it as CSV UTF-8"


def _header(file: TextIOWrapper, table: Path) -> tuple[list[str], str]:
    """The names of the columns and the delimiter; the file is rewound to its beginning."""
    headers = []
    for delimiter in _DELIMITERS:
        # Not strict, because a wrong delimiter puts quotes in the wrong places.
        row = next(csv.reader(_lines(file), delimiter=delimiter), None)
        file.seek(0)
        if row is None or not any(row):
            raise DataError(f"{table} cannot be read as a CSV: its first line is empty")
        headers.append(([name.strip() for name in row], delimiter))
    fitting = [(row, delimiter) for row, delimiter in headers if set(COLUMNS) <= set(row)]
    return next(iter(fitting), max(headers, key=lambda header: len(header[0])))


def _place(header: list[str], column: str, table: Path) -> int:
    if column not in header:
        existing = ", ".join(header)
        raise DataError(f"{table} has no column {column!r}, it has {existing}; rename one")
    if header.count(column) > 1:
        raise DataError(f"{table} has several columns {column!r}; remove or rename all but one")
    return header.index(column)


def _lines(file: TextIOWrapper) -> Iterator[str]:
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise csv.Error(f"a line has more than {_LONGEST_LINE:,} characters")
        yield line


def _inner_path(raw: str, table: Path) -> str:
    """The file name with forward slashes. Raises `DataError` if it leads out of the folder."""
    if _PATH_CHARACTERS.isdisjoint(raw) and raw != "..":
        return raw
    # Windows paths have both kinds of slashes, and drives
    path = PureWindowsPath(raw)
    if path.anchor or ".." in path.parts:
        raise DataError(
            f"{table} names {raw!r}, which leads out of its folder; "
            "put the image into the folder and name it from there"
        )
    return path.as_posix()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
