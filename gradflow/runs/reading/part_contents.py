"""Checks the content of a part against the schema: columns, types, sizes and allowed values."""

from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as kinds

from gradflow.runs.format.files import LAYERS_FILE
from gradflow.runs.format.limits import LONGEST_TEXT, require_memory
from gradflow.runs.format.parts import ARROW_TYPES, ROW_COLUMN, Part
from gradflow.runs.format.quantity import BATCH_SIZE, Table
from gradflow.runs.format.schema import TABLE_OF_FOLDER

_ROWS_AT_ONCE = 1 << 16
_LISTS_AT_ONCE = 1 << 12


class DamagedError(Exception):
    """A part is not what was written; the message says why."""


def checked_columns(part: Part, schema: pa.Schema) -> list[str]:
    """The columns of `part`, checked to have the types of the schema.

    Raises `DamagedError` if a column has another type or occurs twice, or if a key column is
    missing.
    """
    names = list(schema.names)
    twice = (
        {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ()
    )
    if twice:
        raise DamagedError(f"it has the column {min(twice)!r} twice")
    expected = _expected(part)
    present = _table_of(part).current_names
    for field in schema:
        known = expected.get(present.get(field.name, field.name))
        fits = _FITS[known] if known else _is_scalar
        if not (kinds.is_null(field.type) or fits(field.type)):
            raise DamagedError(f"its column {field.name!r} holds {str(field.type)[:60]}")
    for name in _keys_of(part):
        if name not in names:
            raise DamagedError(f"it has no column {name!r}")
    return names


def text_columns(schema: pa.Schema) -> list[str]:
    """The columns of plain text. Read as dictionaries, they hold every text once."""
    return [
        field.name
        for field in schema
        if _is_text(field.type) and not kinds.is_dictionary(field.type)
    ]


def require_fits_memory(
    part: Part,
    file: pq.ParquetFile,
    columns: Sequence[str],
    groups: Iterable[int] | None = None,
) -> None:
    """Make sure that `columns` of `part` fit into memory, by the metadata of the open `file`.

    Counts all row groups, or only `groups`. The metadata of single columns is not used, because
    Arrow crashes if it is damaged.

    Raises `TooLargeError` if they do not fit.
    """
    metadata, schema = file.metadata, file.schema_arrow
    wanted = range(metadata.num_row_groups) if groups is None else groups
    described = [metadata.row_group(group) for group in wanted]
    rows = sum(max(0, int(group.num_rows)) for group in described)
    held = sum(max(0, int(group.total_byte_size)) for group in described)
    kinds_of = [schema.field(name).type for name in columns]
    width = sum(map(_width, kinds_of))
    # Only texts and lists may take more than their width.
    flexible = any(map(_is_flexible, kinds_of))
    require_memory(f"the part {part.path}", rows * width + flexible * held)


def read_in_batches(
    part: Part,
    file: pq.ParquetFile,
    columns: Sequence[str],
    groups: Sequence[int] | None = None,
) -> pa.Table:
    """`columns` of the open `file` of `part`: of all row groups, or of `groups`.

    Reads in batches, because a file does not tell how long its lists are, and its metadata may be
    wrong.

    Raises `TooLargeError` if they do not fit into memory.
    """
    schema = file.schema_arrow  # built on each access
    fields = [schema.field(name) for name in columns]
    lists = any(kinds.is_list(field.type) for field in fields)
    batches, needed = [], 0
    rows_at_once = _LISTS_AT_ONCE if lists else _ROWS_AT_ONCE
    for batch in file.iter_batches(rows_at_once, groups, list(columns), use_threads=False):
        needed += batch.nbytes
        require_memory(f"the part {part.path}", needed)
        batches.append(batch.select(list(columns)))
    return pa.Table.from_batches(batches, pa.schema(fields))


def conform_to_schema(part: Part, table: pa.Table) -> pa.Table:
    """`table`, read from `part`, with the schema's names and types and its rows in order.

    Raises `DamagedError` or an error of Arrow's if that is not possible, and `TooLargeError` if its
    texts would not fit into memory: until now a dictionary holds each text once.
    """
    table = with_current_names(part, table)
    for name in (*_keys_of(part), ROW_COLUMN):
        if name in table.column_names and table[name].null_count:
            raise DamagedError(f"it has rows without {name}")
    expected = _expected(part)
    needed, fields = 0, []
    for field in table.schema:
        kind = ARROW_TYPES[expected[field.name]] if field.name in expected else field.type
        if _is_text(field.type):
            kind = pa.string()
            needed += sum(map(_length, table[field.name].chunks))
        fields.append(pa.field(field.name, kind))
    require_memory(f"the part {part.path}", needed)
    _require_allowed(part, table)
    # This drops the file's metadata, which pandas would read and which may be anything.
    table = table.cast(pa.schema(fields))
    for field in table.schema:
        if kinds.is_string(field.type):
            table[field.name].validate(full=True)
    if ROW_COLUMN in table.column_names:
        table = table.sort_by(ROW_COLUMN).drop_columns([ROW_COLUMN])
    return table


def _require_allowed(part: Part, table: pa.Table) -> None:
    """Make sure that no number is outside its column's range, and no text too long."""
    for field in table.schema:
        if _is_text(field.type) and _longest(table[field.name]) > LONGEST_TEXT:
            raise DamagedError(f"its column {field.name!r} holds a text of too many characters")
    for quantity in _table_of(part).columns:
        if quantity.allowed_range is None or quantity.name not in table.column_names:
            continue
        least, most = quantity.allowed_range
        found = pc.min_max(table[quantity.name]).as_py()
        for value in (found["min"], found["max"]):
            if value is not None and not least <= value <= most:
                raise DamagedError(f"its column {quantity.name!r} holds {value}")


def _table_of(part: Part) -> Table:
    # By the name of the file first, because the run's folder may be named like a table.
    table = "layers" if part.path.name == LAYERS_FILE else part.path.parent.name
    if table not in TABLE_OF_FOLDER:
        raise DamagedError(f"there is no table {table!r}")
    return TABLE_OF_FOLDER[table]


def stored_names(part: Part, stored: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The names, current or former, under which `part` stores the `columns` that it has."""
    former = {now: then for then, now in _table_of(part).current_names.items()}
    called = [name if name in stored else former.get(name, name) for name in columns]
    return [name for name in called if name in stored]


def with_current_names(part: Part, table: pa.Table) -> pa.Table:
    """`table`, read from `part`, with former column names replaced by current ones."""
    present = _table_of(part).current_names
    return table.rename_columns([present.get(name, name) for name in table.column_names])


def _keys_of(part: Part) -> list[str]:
    """The key columns, never empty in any row; batch_size is not one, as it may be missing."""
    return [key.name for key in _table_of(part).keys if key is not BATCH_SIZE]


def _expected(part: Part) -> dict[str, str]:
    """The type of each column of the schema, by name."""
    return {quantity.name: quantity.dtype for quantity in _table_of(part).columns} | {
        ROW_COLUMN: "int64"
    }


def _length(texts: pa.Array) -> int:
    """Bytes that `texts` take if each row holds its own copy."""
    if not kinds.is_dictionary(texts.type):
        return int(texts.nbytes)
    lengths = pc.binary_length(texts.dictionary).cast(pa.int64()).take(texts.indices)
    return int(pc.sum(lengths).as_py() or 0)


def _longest(texts: pa.ChunkedArray) -> int:
    """The number of characters of the longest of `texts`."""
    values = [
        chunk.dictionary if kinds.is_dictionary(chunk.type) else chunk for chunk in texts.chunks
    ]
    return max((int(pc.max(pc.utf8_length(one)).as_py() or 0) for one in values), default=0)


def _width(kind: pa.DataType) -> int:
    """Bytes of one row, without the contents of lists and texts."""
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return 8


def _is_text(kind: pa.DataType) -> bool:
    if kinds.is_dictionary(kind):
        kind = kind.value_type
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind))


def _is_flexible(kind: pa.DataType) -> bool:
    return bool(_is_text(kind) or kinds.is_list(kind) or kinds.is_binary(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(kinds.is_integer(kind) or kinds.is_floating(kind))


def _is_scalar(kind: pa.DataType) -> bool:
    return bool(_is_number(kind) or kinds.is_boolean(kind) or _is_text(kind))


_FITS: dict[str, Callable[[pa.DataType], bool]] = {
    "float64": _is_number,
    "int64": kinds.is_integer,
    "int32": kinds.is_integer,
    "bool": kinds.is_boolean,
    "list": lambda kind: kinds.is_list(kind) and kinds.is_integer(kind.value_type),
    "floats": lambda kind: kinds.is_list(kind) and kinds.is_floating(kind.value_type),
    "bytes": kinds.is_binary,
    "str": _is_text,
}
