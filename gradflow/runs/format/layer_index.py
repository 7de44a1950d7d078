"""Which row groups of a merged part hold a layer: noted in the file, so that others stay unread.

Parquet's own statistics of a column would tell as well. But of a file damaged on purpose, Arrow
ends the program when it is asked for them; this note is read as text.
"""

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_KEY = "gradflow.layers"


class LayerIndex:
    """Collects the first and last layer of every row group of a part that is being written."""

    def __init__(self) -> None:
        self._bounds: list[tuple[str, str]] = []

    def write(self, writer: pq.ParquetWriter, table: pa.Table, rows_in_a_group: int) -> None:
        """Write `table`, whose rows are in order of layer if it has any, in row groups."""
        writer.write_table(table, rows_in_a_group)
        if "layer" not in table.column_names:
            return
        for begin in range(0, len(table), rows_in_a_group):
            end = min(begin + rows_in_a_group, len(table)) - 1
            self._bounds.append((table["layer"][begin].as_py(), table["layer"][end].as_py()))

    def save(self, writer: pq.ParquetWriter) -> None:
        """Note what was collected in the file; the last thing before `writer` is closed."""
        if self._bounds:
            writer.add_key_value_metadata({_KEY: json.dumps(self._bounds, ensure_ascii=False)})


def row_groups_with(file: pq.ParquetFile, layer: str) -> list[int]:
    """The row groups of `file` that may hold `layer`: all of them where it does not say."""
    groups = list(range(file.num_row_groups))
    try:
        bounds: Any = json.loads((file.metadata.metadata or {})[_KEY.encode()])
        if len(bounds) == len(groups):
            pairs = zip(groups, bounds, strict=True)
            return [group for group, (first, last) in pairs if first <= layer <= last]
    except (KeyError, ValueError, TypeError, RecursionError):
        pass
    return groups
