"""An index of the layers in each row group of a merged part, so that readers can skip the others.

The index is text in the metadata of the file. Parquet has column statistics for the same purpose,
but Arrow crashes when it reads them from a file that was damaged on purpose.
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
        """Write `table` in row groups. If it has a column `layer`, its rows are sorted by it."""
        writer.write_table(table, rows_in_a_group)
        if "layer" not in table.column_names:
            return
        for begin in range(0, len(table), rows_in_a_group):
            end = min(begin + rows_in_a_group, len(table)) - 1
            self._bounds.append((table["layer"][begin].as_py(), table["layer"][end].as_py()))

    def save(self, writer: pq.ParquetWriter) -> None:
        """Write the index into the metadata of the file, just before `writer` is closed."""
        if self._bounds:
            writer.add_key_value_metadata({_KEY: json.dumps(self._bounds, ensure_ascii=False)})


def row_groups_with(file: pq.ParquetFile, layer: str) -> list[int]:
    """The row groups of `file` that may hold `layer`: all of them if there is no index."""
    groups = list(range(file.num_row_groups))
    try:
        bounds: Any = json.loads((file.metadata.metadata or {})[_KEY.encode()])
        if len(bounds) == len(groups):
            pairs = zip(groups, bounds, strict=True)
            return [group for group, (first, last) in pairs if first <= layer <= last]
    except (KeyError, ValueError, TypeError, RecursionError):
        pass
    return groups
