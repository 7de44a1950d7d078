"""Reads all parts of a table of one run, one while another is decompressed."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from gradflow.runs.format.files import LAYERS_FILE
from gradflow.runs.format.limits import require_memory
from gradflow.runs.format.manifest import Manifest
from gradflow.runs.format.parts import Part, parts_of

_AT_ONCE = 2  # what Python does of a part takes as long as the rest, which needs no Python


def read_parts(
    manifest: Manifest, name: str, read: Callable[[Manifest, Part], pa.Table]
) -> list[pa.Table]:
    """The result of `read` for each part of the table `name`, in order of step.

    Raises what `read` raises, and `TooLargeError` once they no longer fit into memory.
    """
    tables, total = [], 0
    for table in _each(lambda part: read(manifest, part), _parts(manifest, name)):
        total += table.nbytes
        require_memory("a table of the run", total)
        tables.append(table)
    return tables


def _parts(manifest: Manifest, name: str) -> list[Part]:
    if name != "layers":
        return parts_of(manifest, name)
    path = manifest.folder / LAYERS_FILE
    return [Part(0, 0, path)] if path.exists() or manifest.lists(path) else []


def _each(read: Callable[[Part], pa.Table], parts: Sequence[Part]) -> Iterator[pa.Table]:
    """The result of `read` for each of `parts` in order."""
    if len(parts) < _AT_ONCE:
        yield from map(read, parts)
        return
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        # No more than these: what follows may no longer fit into memory.
        begun = deque(threads.submit(read, part) for part in parts[:_AT_ONCE])
        for part in [*parts[_AT_ONCE:], *[None] * _AT_ONCE]:
            table = begun.popleft().result()
            if part:
                begun.append(threads.submit(read, part))
            yield table
