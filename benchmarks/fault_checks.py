"""Checks that an interrupted experiment lost no data, and that a resumed one equals a reference."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from fault_injection import Circumstances, start
from PIL import Image

import gradflow
from gradflow.runs.format.files import EXPERIMENT_FILE, RUN_FILE, TEMPORARY_PATTERN
from gradflow.runs.format.manifest import read_manifest
from gradflow.runs.format.parts import leftover_files
from gradflow.runs.format.schema import TABLES
from gradflow.runs.reading.run import Run
from gradflow.training import checkpoints

WITHOUT_EPOCHS = ("layers", "images")


@dataclass(frozen=True)
class Reference:
    """An uninterrupted experiment.

    Fields:
        options: the options of the training, without its folder.
        folder: the experiment's folder.
        moments: the names of all moments of its writing.
        seconds: how long it took.
        tables: by run and name, without columns of times.
    """

    options: tuple[str, ...]
    folder: Path
    moments: tuple[str, ...]
    seconds: float
    tables: dict[tuple[str, str], pd.DataFrame] = field(repr=False)

    def command(self, folder: Path) -> list[str]:
        """The arguments that make the same experiment in `folder`."""
        return [*self.options, "--out", str(folder)]

    def next_command(self, folder: Path) -> list[str]:
        """The arguments to resume the experiment in `folder`, or to start it if there is none."""
        begun = (folder / EXPERIMENT_FILE).exists()
        return ["--resume", str(folder)] if begun else self.command(folder)


def make_images(folder: Path) -> Path:
    """24 images of 8x8 in two classes, dark and bright, in a new folder."""
    generator = np.random.default_rng(0)
    for name, level in (("bright", 180), ("dark", 40)):
        (folder / name).mkdir(parents=True)
        for index in range(12):
            pixels = level + generator.integers(0, 60, (8, 8, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")
    return folder


def make_reference(
    options: tuple[str, ...], folder: Path, clock: Callable[[], float], **circumstances: Any
) -> Reference:
    """Train with `options` into `folder` without interruption; a first run compiles the code."""
    moments = folder.with_suffix(".json")
    watched = Circumstances(moments=moments, **circumstances)
    for target in (folder.with_name(f"{folder.name}-before"), folder):
        log = folder.with_suffix(".log")
        training = start([*options, "--out", str(target)], target, log, watched)
        training.began.recv()
        begin = clock()
        assert training.wait() == 0, training.errors
        seconds = clock() - begin
    names = tuple(json.loads(moments.read_text()))
    runs = gradflow.open_experiment(folder).runs
    tables = {(run.name, name): table_of(run, name) for run in runs for name in TABLES}
    return Reference(options, folder, names, seconds, tables)


def table_of(run: Run, name: str) -> pd.DataFrame:
    """A table of `run` without its column of seconds."""
    rows = run.table(name)
    return rows.drop(columns=[column for column in rows if str(column).endswith("seconds")])


def check_interrupted(folder: Path, reference: Reference) -> None:
    """Check that an interrupted experiment can be read, and lacks no row and repeats none.

    Every table must be the beginning of the same table of the uninterrupted run, and reach at least
    to the last saved state.
    """
    for run in _started_runs(folder):
        steps = _steps_on_disk(run)
        for name in TABLES:
            whole = reference.tables[run.name, name]
            found = table_of(run, name)
            _same(found, whole.head(len(found)), f"{run.name}: {name}")
            least = int((_step_of(run, name, whole) < steps).sum())
            assert len(found) >= least, (
                f"{run.name}: {name} has {len(found)} rows, the state is after {least}"
            )


def check_end(folder: Path, reference: Reference) -> None:
    """Check that an experiment equals the uninterrupted one bit for bit, and left no other file."""
    runs = gradflow.open_experiment(folder).runs
    assert [run.name for run in runs] == list(dict.fromkeys(run for run, _ in reference.tables))
    for run in runs:
        assert run.description["status"] == "complete", run.description["status"]
        for name in TABLES:
            _same(table_of(run, name), reference.tables[run.name, name], f"{run.name}: {name}")
        _check_files(run.folder)
    for path in reference.folder.rglob("*.pt"):
        _same_weights(folder / path.relative_to(reference.folder), path)
    extra = _other_files(folder) ^ _other_files(reference.folder)
    assert not extra, f"files in only one of both: {sorted(map(str, extra))}"


def _started_runs(folder: Path) -> tuple[Run, ...]:
    started = list(folder.glob(f"*/{RUN_FILE}"))
    return gradflow.open_experiment(folder).runs if started else ()


def _steps_on_disk(run: Run) -> float:
    """The steps before which no row may be missing."""
    if run.description["status"] == "complete":
        return math.inf
    try:
        return int(json.loads((run.folder / "state.json").read_text())["step"])
    except FileNotFoundError:
        return 0


def _step_of(run: Run, name: str, table: pd.DataFrame) -> pd.Series:
    """For each row of `table`, the step at which it was recorded; -1 before the first step.

    A table without steps, e.g. that of the layers, must exist if a state was saved.
    """
    if "step" in table.columns:
        return table["step"]
    if "epoch" in table.columns:
        return table["epoch"] * int(run.description["steps_per_epoch"]) - 1
    assert name in WITHOUT_EPOCHS
    return pd.Series(0, index=table.index)


def _same(found: pd.DataFrame, expected: pd.DataFrame, what: str) -> None:
    assert len(found) == len(expected), f"{what}: {len(found)} rows, not {len(expected)}"
    if found.empty:
        return
    pd.testing.assert_frame_equal(found, expected, check_exact=True, obj=what)


def _same_weights(found: Path, expected: Path) -> None:
    first, second = checkpoints.load(found), checkpoints.load(expected)
    weights, others = first.pop("state_dict"), second.pop("state_dict")
    assert first == second, f"{found}: {first}, not {second}"
    assert all(torch.equal(weights[name], others[name]) for name in others), f"{found}: weights"


def _check_files(folder: Path) -> None:
    """Check that the manifest lists exactly the files of the tables, and no other file is left."""
    manifest = read_manifest(folder)
    assert leftover_files(manifest) == [], f"{folder}: left over {leftover_files(manifest)}"
    on_disk = {path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet")}
    listed = {name for name in manifest.files if name.endswith(".parquet")}
    assert on_disk == listed, f"{folder}: {on_disk ^ listed}"
    for name, entries in manifest.files.items():
        content = (folder / name).read_bytes()
        assert entries[-1].describes(content), f"{folder / name} is not what was written"


def _other_files(folder: Path) -> set[Path]:
    """All files except those of tables, which may be divided into parts differently."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert not list(folder.rglob(TEMPORARY_PATTERN)), (
        f"temporary files: {list(folder.rglob(TEMPORARY_PATTERN))}"
    )
    return {path for path in files if path.suffix != ".parquet"}
