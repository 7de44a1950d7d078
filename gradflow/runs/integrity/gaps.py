"""Finds gaps: steps and epochs that a table lacks although other tables of the run have them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gradflow.runs.format.limits import require_memory

# The memory of a number in a set.
_BYTES_A_VALUE = 64

# Tables recorded at the same steps. A run may lack any of them.
STEP_TABLES = (
    "activations",
    "gradients",
    "parameters",
    "junctions",
    "steps",
    "groups",
)
# Recorded at the same steps, which are some of those: by default the first of each epoch.
HISTOGRAM_TABLES = ("activation_histograms", "gradient_histograms")


@dataclass(frozen=True)
class Gap:
    """Steps or epochs, `first` to `last`, that `table` lacks although other tables have them."""

    table: str
    unit: str
    first: int
    last: int

    def __str__(self) -> str:
        if self.first == self.last:
            return f"{self.table}: {self.unit} {self.first}"
        return f"{self.table}: {self.unit}s {self.first} to {self.last}"


def gaps_of(parts: Iterable[Path], *, finished: bool) -> tuple[Gap, ...]:
    """The gaps of a run whose tables are in `parts`, all of them readable.

    A table without any rows has no gap: it was not recorded. If the run is not `finished`, its last
    epoch is not expected.

    Raises `TooLargeError` if a part has more steps than fit into memory.
    """
    steps: dict[str, set[int]] = defaultdict(set)
    epochs: dict[str, set[int]] = defaultdict(set)
    for part in parts:
        table = part.parent.name
        by_step = table in (*STEP_TABLES, *HISTOGRAM_TABLES)
        if part.suffix == ".parquet" and (by_step or table == "epochs"):
            if by_step:
                steps[table] |= _values(part, "step")
            epochs[table] |= _values(part, "epoch")
    gaps = []
    for alike in (STEP_TABLES, HISTOGRAM_TABLES):
        there = sorted(set(alike) & steps.keys())
        every_step = sorted(set().union(*(steps[table] for table in there)))
        gaps += [gap for table in there for gap in _missing(table, "step", steps, every_step)]
    every_epoch = sorted(set().union(*epochs.values()))
    expected = every_epoch if finished else every_epoch[:-1]
    if epochs["epochs"]:
        gaps += _missing("epochs", "epoch", epochs, expected)
    return tuple(gaps)


def _missing(table: str, unit: str, had: dict[str, set[int]], expected: list[int]) -> Iterator[Gap]:
    """The longest ranges of `expected` values that `table` lacks."""
    first: int | None = None
    last = 0
    for value in expected:
        if value not in had[table]:
            first = value if first is None else first
            last = value
        elif first is not None:
            yield Gap(table, unit, first, last)
            first = None
    if first is not None:
        yield Gap(table, unit, first, last)


def _values(part: Path, column: str) -> set[int]:
    """The distinct integers of a column, read by row group so that memory stays flat."""
    file = pq.ParquetFile(part)
    schema = file.schema_arrow
    if column not in schema.names or not pa.types.is_integer(schema.field(column).type):
        return set()
    found: set[int] = set()
    for group in range(file.num_row_groups):
        values = pc.unique(file.read_row_group(group, [column])[column].drop_null())
        require_memory(f"the {column}s of {part}", _BYTES_A_VALUE * (len(found) + len(values)))
        found.update(values.to_pylist())
    return found
