"""Reads the table that lists image files and their labels, row by row: a CSV, or lines of JSON."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path, PureWindowsPath

from gradflow.data.label_json import JSON_SUFFIXES, json_rows, no_column
from gradflow.data.notes import Notes
from gradflow.errors import DataError
from gradflow.runs.format.limits import LONGEST_NAME

# What a column holds, and the names by which it is known if nothing else is said. Hugging Face
# writes file_name.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "image": ("filename", "file_name"),
    "label": ("label",),
    "split": (),
}
# Spreadsheets write semicolons in countries where the comma is the decimal sign.
_DELIMITERS = (",", ";", "\t")
# In characters. A longer line is not a list of file names, and would fill the memory.
_LONGEST_LINE = 1 << 20
_PATH_CHARACTERS = frozenset("\\/:")


@dataclass
class LabelledRow:
    """The label of one file, the number of rows that give it, and its entry in a column `split`."""

    label: str
    rows: int = 1
    split: str = ""


def read_labels(
    table: Path, columns: Mapping[str, str] | None = None, notes: Notes | None = None
) -> dict[str, LabelledRow]:
    """The labels of a table by file name, with forward slashes, in the order of their first rows.

    A CSV is UTF-8, with or without a byte-order mark. Columns are separated by commas, semicolons
    or tabs; those that are not asked for are ignored. Every field is read as text. A file listed
    several times with one label counts once. Lines of JSON are read by `label_json.json_rows`.

    Args:
        table: The path of the CSV or JSONL file.
        columns: The names of the columns image, label and split, if they are not those of
            `COLUMNS`. Without a name for it, no column is taken for the split.
        notes: Takes rows without a file name or a label, and rows with too many fields. Without
            it they are refused.

    Raises:
        DataError: The file is not such a table, gives a file two labels, or names a file outside
            the table's folder.
    """
    own = notes or Notes()
    labels: dict[str, LabelledRow] = {}
    names: dict[str, str] = {}
    rows = json_rows if table.suffix.lower() in JSON_SUFFIXES else _rows
    for line, raw, label, split in rows(table, columns or {}, own):
        if not raw or not label:
            own.bad(
                f"rows of {table} without a {'label' if raw else 'filename'}",
                f"line {line}",
                f"{table} has no filename or no label in line {line}; complete it",
            )
            continue
        if len(label) > LONGEST_NAME:
            raise DataError(
                f"{table} has a label of {len(label):,} characters in line {line}, more than the "
                f"{LONGEST_NAME:,} that a class may have; shorten it"
            )
        name = names.get(raw) or names.setdefault(raw, _inner_path(raw, table))
        known = labels.get(name)
        if known is None:
            labels[name] = LabelledRow(label, split=split)
        elif (known.label, known.split) != (label, split):
            what, had, has = (
                ("labels", known.label, label)
                if known.label != label
                else ("sides of the split", known.split, split)
            )
            raise DataError(f"{table} gives {name} two {what}, {had} and {has}; keep one of them")
        else:
            known.rows += 1
    if notes is None:
        own.settle()
    if not labels:
        raise DataError(f"{table} lists no images; add rows of filename,label")
    return labels


def has_columns(table: Path, columns: Mapping[str, str]) -> bool:
    """Whether the first line of a CSV names the columns that `read_labels` needs."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            header, _ = _header(file, table, columns)
    except (OSError, csv.Error, UnicodeDecodeError, DataError):
        return False
    return _fits(header, columns)


def _rows(
    table: Path, columns: Mapping[str, str], notes: Notes
) -> Iterator[tuple[int, str, str, str]]:
    """The last line of each row, its filename, its label, and its side if a column is given."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            header, delimiter = _header(file, table, columns)
            places = [_place(header, kind, columns, table) for kind in ("image", "label")]
            if "split" in columns:
                places.append(_place(header, "split", columns, table))
            reader = csv.reader(_lines(file), delimiter=delimiter, strict=True)
            next(reader)
            for row in reader:
                if len(row) > len(header):
                    notes.bad(
                        f"rows of {table} with more fields than its {len(header)} columns",
                        f"line {reader.line_num}",
                        f"{table} has {len(row)} fields in line {reader.line_num}, but "
                        f"{len(header)} columns; put names that hold {delimiter!r} in quotes",
                    )
                elif row:
                    fields = [row[at].strip() if at < len(row) else "" for at in places]
                    filename, label, split = [*fields, ""][:3]
                    yield reader.line_num, filename, label, split
    except UnicodeDecodeError as error:
        raise DataError(f"{table} cannot be read as a CSV: {_NOT_UTF8}") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{table} cannot be read as a CSV: {_one_line(error)}") from error


_NOT_UTF8 = "its text is not valid UTF-8; save it as CSV UTF-8"


def _header(file: TextIOWrapper, table: Path, columns: Mapping[str, str]) -> tuple[list[str], str]:
    """The names of the columns and the delimiter; the file is rewound to its beginning."""
    headers = []
    for delimiter in _DELIMITERS:
        # Not strict, because a wrong delimiter puts quotes in the wrong places.
        row = next(csv.reader(_lines(file), delimiter=delimiter), None)
        file.seek(0)
        if row is None or not any(row):
            raise DataError(f"{table} cannot be read as a CSV: its first line is empty")
        headers.append(([name.strip() for name in row], delimiter))
    fitting = [(row, delimiter) for row, delimiter in headers if _fits(row, columns)]
    return next(iter(fitting), max(headers, key=lambda header: len(header[0])))


def _fits(header: list[str], columns: Mapping[str, str]) -> bool:
    return all(
        any(name in header for name in _names(kind, columns))
        for kind in ("image", "label", *columns)
    )


def _names(kind: str, columns: Mapping[str, str]) -> tuple[str, ...]:
    """The names under which the column of `kind` is looked for."""
    return (columns[kind],) if kind in columns else COLUMNS[kind]


def _place(header: list[str], kind: str, columns: Mapping[str, str], table: Path) -> int:
    column = next((name for name in _names(kind, columns) if name in header), None)
    if column is None:
        raise no_column(table, _names(kind, columns)[0], header)
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
