"""Parts are read two at a time, and nobody can tell: order, errors and memory are the same."""

from pathlib import Path
from threading import Barrier, Lock

import pyarrow as pa
import pytest

from gradflow.errors import RunError
from gradflow.runs.format.limits import TooLargeError
from gradflow.runs.format.manifest import Manifest
from gradflow.runs.format.parts import Part
from gradflow.runs.reading import parts as reading
from gradflow.runs.reading.parts import read_parts

MANIFEST = Manifest(Path("run"), exists=True)


@pytest.fixture
def parts(monkeypatch):
    some = [Part(step, step, Path(f"part-{step}")) for step in range(5)]
    monkeypatch.setattr(reading, "parts_of", lambda _manifest, _name: some)
    return some


def table(part: Part) -> pa.Table:
    return pa.table({"step": [part.first]})


def test_two_parts_are_read_at_once_and_come_in_order(parts):
    met = Barrier(2, timeout=10)

    def read(_: Manifest, part: Part) -> pa.Table:
        if part.first < 4:  # 5 parts: the last one has no partner
            met.wait()
        return table(part)

    assert read_parts(MANIFEST, "steps", read) == [table(part) for part in parts]


def test_a_single_part_is_read_without_a_thread(parts, monkeypatch):
    monkeypatch.setattr(reading, "ThreadPoolExecutor", None)
    del parts[1:]
    assert read_parts(MANIFEST, "steps", lambda _, part: table(part)) == [table(parts[0])]
    del parts[:]
    assert read_parts(MANIFEST, "steps", lambda _, part: table(part)) == []


@pytest.mark.parametrize("damaged", [{0}, {1, 3}, {4}])
def test_the_first_error_is_raised(parts, damaged):
    def read(_: Manifest, part: Part) -> pa.Table:
        if part.first in damaged:
            raise RunError(f"part {part.first} is damaged")
        return table(part)

    with pytest.raises(RunError, match=f"part {min(damaged)} is damaged"):
        read_parts(MANIFEST, "steps", read)


def test_what_no_longer_fits_ends_the_reading(parts, monkeypatch):
    read_so_far, lock = [], Lock()

    def read(_: Manifest, part: Part) -> pa.Table:
        with lock:
            read_so_far.append(part)
        return table(part)

    def require(_: str, needed: int) -> None:
        if needed > table(parts[0]).nbytes:
            raise TooLargeError("too large")

    monkeypatch.setattr(reading, "require_memory", require)
    with pytest.raises(TooLargeError):
        read_parts(MANIFEST, "steps", read)
    assert len(read_so_far) < len(parts)
