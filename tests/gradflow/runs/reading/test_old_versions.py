"""Runs of every schema version are read; a newer one is refused in a sentence."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

import gradflow
from gradflow.errors import RunError
from gradflow.runs.__main__ import main
from gradflow.runs.format.manifest import read_manifest
from gradflow.runs.format.schema import SCHEMA_VERSION, TABLES
from gradflow.runs.integrity.check import check_run
from gradflow.runs.reading.run import open_experiment
from gradflow.runs.writing.run import RunWriter

RECORDED = Path(__file__).parents[3] / "fixtures" / "runs"
VERSIONS = range(1, SCHEMA_VERSION + 1)
BY_STEP = ("activations", "gradients", "parameters", "junctions", "steps")


def copy_of(version, tmp_path):
    return shutil.copytree(RECORDED / f"version-{version}", tmp_path / "experiment")


def independently(folder, table):
    """The rows of a table by pyarrow alone, merged parts put in order by their column `row`."""
    files = sorted((folder / table).glob("*.parquet"), key=lambda path: path.name.split("-")[1])
    tables = [pq.ParquetFile(path).read() for path in files]
    frames = []
    for one in tables:
        frame = one.to_pandas()
        if "row" in frame:
            frame = frame.sort_values("row").drop(columns="row")
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_is_kept_and_read_with_the_numbers_it_holds(version):
    experiment = open_experiment(RECORDED / f"version-{version}")
    (run,) = experiment.runs
    assert run.description["schema_version"] == experiment.description["schema_version"] == version
    assert (run.network, run.seed, run.classes) == ("tiny", 0, ["a", "b"])
    rows = {"activations": 24, "gradients": 24, "parameters": 36, "junctions": 6, "steps": 6}
    rows |= {"epochs": 3, "predictions": 24}
    for name, count in rows.items():
        frame = run.table(name)
        expected = independently(run.folder, name)
        assert len(frame) == len(expected) == count
        for column in expected:
            assert frame[column].tolist() == pytest.approx(expected[column].tolist(), nan_ok=True)
    layers = pq.read_table(run.folder / "layers.parquet")
    assert (
        run.layers["layer"].tolist() == layers["layer"].to_pylist() == ["0", "1.linear", "1", "2"]
    )


def test_versions_hold_the_same_training():
    runs = [open_experiment(RECORDED / f"version-{version}").runs[0] for version in VERSIONS]
    for name in TABLES:
        first, *others = (run.table(name) for run in runs)
        for other in others:
            pd.testing.assert_frame_equal(first, other)
    assert runs[0].epochs["train_loss"].tolist() == pytest.approx([0.58, 0.52, 0.48], abs=0.2)


@pytest.mark.parametrize("version", VERSIONS)
def test_history_of_a_layer_is_that_of_the_whole_table(version):
    (run,) = open_experiment(RECORDED / f"version-{version}").runs
    whole = independently(run.folder, "gradients")
    expected = whole[whole["layer"] == "1.linear"]["norm"].tolist()
    assert run.layer_history("gradients", "1.linear", ["norm"])["norm"].tolist() == expected


@pytest.mark.parametrize("name", ["run.json", "experiment.json"])
def test_newer_version_is_refused_in_a_sentence(name, tmp_path, capsys):
    folder = copy_of(SCHEMA_VERSION, tmp_path)
    path = folder / name if name == "experiment.json" else folder / "tiny-seed0" / name
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 3}))
    sentence = r"has schema version 3, this gradflow reads up to 2: read it with a newer gradflow$"
    with pytest.raises(RunError, match=sentence):
        open_experiment(folder)
    if name == "run.json":
        with pytest.raises(RunError, match=sentence):
            RunWriter.resume(path.parent, epoch=1, step=0)
    for option in ([], ["--repair"]):
        assert main(["check", str(folder), *option]) == 1
        error = capsys.readouterr().err
        assert "newer gradflow" in error
        assert error.count("\n") == 1


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("epoch", [1, 2, 3, 4])
def test_run_can_be_rolled_back_to_every_epoch_and_is_then_of_the_present_version(
    version, epoch, tmp_path
):
    folder = copy_of(version, tmp_path) / "tiny-seed0"
    before = {name: gradflow.open_run(folder).table(name) for name in (*BY_STEP, "predictions")}
    RunWriter.resume(folder, epoch=epoch, step=2 * (epoch - 1)).release()
    run = gradflow.open_run(folder)
    assert run.description["schema_version"] == SCHEMA_VERSION
    assert read_manifest(folder).exists
    assert not check_run(folder).findings
    for name, frame in before.items():
        expected = frame[frame["epoch"] < epoch]
        assert len(run.table(name)) == len(expected)
        for column in expected:
            assert run.table(name)[column].equals(expected[column]) or not len(expected)


def test_run_of_version_1_whose_part_was_cut_short_is_named(tmp_path):
    folder = copy_of(1, tmp_path) / "tiny-seed0"
    part = next(iter(sorted(folder.glob("gradients/*"))))
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(RunError, match=part.name):
        _ = gradflow.open_run(folder).gradients
