"""The fuzz surface of run folders: damaged ones, and ones that an attacker might craft."""

import functools
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from fuzz_inputs import (
    any_json,
    any_text,
    json_bytes,
    mutated,
    mutated_json,
    place,
    replace_by_something_odd,
)
from fuzz_trial import Attempt

from gradflow.runs.format.schema import TABLES
from gradflow.runs.integrity.check import check_run, runs_in
from gradflow.runs.integrity.repair import repair
from gradflow.runs.reading.locating import newest_experiment
from gradflow.runs.reading.run import Run, open_experiment
from gradflow.training import checkpoints

FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures" / "runs"
RUN = "tiny-seed0"
FOLDERS = (*["experiment"] * 5, "-rf", "a\nb", "run\udcff", "s3:", "x" * 255, "\u6f22 <b>")
COLUMNS: tuple[Callable[[int], Any], ...] = (
    pa.nulls,
    lambda rows: pa.array([float("nan")] * rows),
    lambda rows: pa.array([-(2**63)] * rows),
    lambda rows: pa.array(["<b>\0\n"] * rows),
    lambda rows: pa.array([b"\xff"] * rows),
    lambda rows: pa.array([[1, 2]] * rows),
    lambda rows: pa.array([{"a": 1}] * rows),
    lambda rows: pa.array([True] * rows),
    lambda rows: pa.array([10**15] * rows, pa.timestamp("s")),
    lambda rows: pa.array(["x"] * rows).dictionary_encode(),
)


def make_run(random: Random, scratch: Path) -> Attempt:
    """A copy of a recorded experiment in which one to three files are changed."""
    folder = scratch / random.choice(FOLDERS)
    template = FIXTURES / random.choice(("version-1", "version-2"))
    shutil.copytree(template, folder)
    place(folder, f"{RUN}/best.pt", _weights())
    if random.random() < 0.5:  # else its checksums would tell of most that follows
        (folder / RUN / "manifest.jsonl").unlink(missing_ok=True)
    words = [template.name]
    touched = []
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        path = _any_file(random, folder)
        words.append(f"{path.relative_to(folder).as_posix()} {_change(random, path, folder)}")
        touched.append(path)
    kind = random.randrange(12)
    if kind == 0:
        return Attempt(f"repair: {words}", lambda: repair(folder), writes=True)
    if kind < 3:
        return Attempt(f"check: {words}", lambda: [check_run(run) for run in runs_in(folder)[0]])
    if kind == 3:
        return Attempt(f"newest: {words}", lambda: newest_experiment(scratch))
    if kind == 4:
        return Attempt(f"weights: {words}", lambda: _read_weights(folder / RUN))
    names = {path.parent.name for path in touched} & TABLES.keys()
    names |= {random.choice(list(TABLES)), "layers"}
    return Attempt(f"read {sorted(names)}: {words}", lambda: _read(folder, sorted(names)))


def _read(folder: Path, tables: list[str]) -> None:
    experiment = open_experiment(folder)
    for run in experiment.runs:
        _ = run.name, run.network, run.seed, run.configuration, run.classes
        for name in tables:
            run.table(name)
            _read_layer(run, name)


def _read_layer(run: Run, name: str) -> None:
    columns = [quantity.name for quantity in TABLES[name].columns]
    if "layer" in columns and "step" in columns:
        run.layer_history(name, "conv1", columns[-2:])


def _read_weights(run: Path) -> None:
    for path in checkpoints.available(run).values():
        checkpoints.load(path)


def _any_file(random: Random, folder: Path) -> Path:
    kind = random.randrange(5)
    if kind == 0:
        return folder / "experiment.json"
    if kind == 1:
        return folder / RUN / random.choice(("run.json", "manifest.jsonl", "best.pt"))
    return random.choice(sorted((folder / RUN).rglob("*.parquet")) or [folder / "experiment.json"])


def _change(random: Random, path: Path, folder: Path) -> str:
    """Change the file at `path`; return how."""
    # What a link leads to, put there before, is not to be written.
    if path.is_symlink() or not path.is_file() or random.random() < 0.05:
        return replace_by_something_odd(random, path, folder.parent)
    content = path.read_bytes()
    if path.suffix == ".json":
        description = json.loads((FIXTURES / "version-1" / path.relative_to(folder)).read_bytes())
        path.write_bytes(json_bytes(random, mutated_json(random, description), (content,)))
        return f"as {path.read_bytes()[:200]!r}"
    if path.suffix == ".parquet" and random.random() < 0.3:
        path.write_bytes(_crafted(random, content))
        return "crafted"
    if random.random() < 0.1:
        name = f"part-{random.randrange(9):010d}-{random.randrange(10**10):010d}.parquet"
        path.rename(path.with_name(random.choice((name, "x.parquet", "epoch--1.pt"))))
        return "renamed"
    if path.suffix == ".jsonl" and random.random() < 0.5:
        line = json.dumps({"written": {any_text(random): any_json(random)}, "check": 0}).encode()
        path.write_bytes(content + line + b"\n")
        return f"with {line[:200]!r}"
    path.write_bytes(mutated(random, content, (content, _weights())))
    return "damaged"


def _crafted(random: Random, content: bytes) -> bytes:
    """A valid parquet file with wrong columns."""
    try:
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError):  # damaged before
        return content
    for _ in range(random.choice((1, 1, 3))):
        at = random.randrange(table.num_columns)
        name = table.column_names[at]
        kind = random.randrange(4)
        if kind == 0 and table.num_columns > 1:
            table = table.drop_columns([name])
        elif kind == 1:
            text = any_text(random).encode(errors="replace").decode()
            table = table.rename_columns(
                [text if one == name else one for one in table.column_names]
            )
        elif kind == 2:
            column = random.choice(COLUMNS)(table.num_rows)
            table = table.set_column(at, name, column)
        else:
            rows = random.choice((0, 1, 200_000))
            table = pa.concat_tables([table.slice(0, 1)] * rows) if rows else table.slice(0, 0)
    stream = io.BytesIO()
    pq.write_table(table.combine_chunks(), stream)
    return stream.getvalue()


@functools.cache
def _weights() -> bytes:
    stream = io.BytesIO()
    torch.save({"state_dict": {"a": torch.zeros(2)}, "epoch": 1}, stream)
    return stream.getvalue()
