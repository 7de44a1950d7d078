"""Runs of every schema version are read; a newer version is refused with one sentence."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gradflow
from gradflow.errors import RunError
from gradflow.runs.__main__ import main
from gradflow.runs.format.manifest import read_manifest
from gradflow.runs.format.schema import SCHEMA_VERSION, TABLES
from gradflow.runs.integrity.check import check_run
from gradflow.runs.reading.run import open_experiment
from gradflow.runs.writing import merging
from gradflow.runs.writing.rebuilding import rebuild_manifest
from gradflow.runs.writing.run import RunWriter
from gradflow.training.configuration import Configuration

RECORDED = Path(__file__).parents[3] / "fixtures" / "runs"
VERSIONS = range(1, SCHEMA_VERSION + 1)
STEP_TABLES = ("activations", "gradients", "parameters", "junctions", "steps")


def copy_of(version, tmp_path):
    return shutil.copytree(RECORDED / f"version-{version}", tmp_path / "experiment")


def independently(folder, table):
    """The rows of a table, read only with pyarrow; merged parts are sorted by `row`."""
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
            values = frame["skip_type" if column == "shortcut" else column].tolist()
            assert values == pytest.approx(expected[column].tolist(), nan_ok=True)
    layers = pq.read_table(run.folder / "layers.parquet")
    assert (
        run.layers["layer"].tolist() == layers["layer"].to_pylist() == ["0", "1.linear", "1", "2"]
    )


def test_versions_hold_the_same_training():
    runs = [open_experiment(RECORDED / f"version-{version}").runs[0] for version in VERSIONS]
    for name in TABLES:
        first, *others = (run.table(name) for run in runs)
        for other in others:
            # Rounding errors, of the order of 1e-8, differ between processors.
            pd.testing.assert_frame_equal(first, other, atol=1e-6)
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
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"schema_version": SCHEMA_VERSION + 1})
    )
    versions = (
        f"has schema version {SCHEMA_VERSION + 1}, but this gradflow reads up to {SCHEMA_VERSION}"
    )
    sentence = rf"{versions}: read it with a newer gradflow$"
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
    before = {name: gradflow.open_run(folder).table(name) for name in (*STEP_TABLES, "predictions")}
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


def with_scaled_skips(version, tmp_path, epochs=(1,)):
    """A copy of a run of `version` with the table under its former name `shortcut_scaling`."""
    run = copy_of(version, tmp_path) / "tiny-seed0"
    (run / "shortcut_scaling").mkdir()
    for epoch in epochs:
        columns = {"epoch": [epoch] * 2, "scope": ["all"] * 2, "scale": [0.0, 1.0]}
        name = f"part-{2 * epoch - 2:010d}-{2 * epoch - 1:010d}.parquet"
        pq.write_table(pa.table(columns), run / "shortcut_scaling" / name)
    rebuild_manifest(run)
    return run


@pytest.mark.parametrize("version", [1, 2])
def test_table_of_scaled_skips_is_read_under_its_present_name(version, tmp_path):
    folder = with_scaled_skips(version, tmp_path, epochs=(1, 2))
    run = gradflow.open_run(folder)
    assert run.table("skip_scaling")["scale"].tolist() == [0.0, 1.0, 0.0, 1.0]
    assert not check_run(folder).findings
    RunWriter.resume(folder, epoch=2, step=2).release()
    assert gradflow.open_run(folder).table("skip_scaling")["epoch"].tolist() == [1, 1]


def test_junctions_of_an_old_run_are_merged_with_those_of_a_resumed_one(tmp_path, monkeypatch):
    folder = copy_of(1, tmp_path) / "tiny-seed0"
    before = gradflow.open_run(folder).junctions
    monkeypatch.setattr(merging, "PARTS_PER_MERGE", 2)
    writer = RunWriter.resume(folder, epoch=4, step=6)
    for epoch in (4, 5, 6):
        rows = before[before["epoch"] == 1].assign(epoch=epoch, step=[2 * epoch - 2, 2 * epoch - 1])
        writer.append("junctions", rows.to_dict("list"), 2 * epoch - 2, 2 * epoch - 1)
    writer.close("complete")
    assert [part.name[:6] for part in sorted((folder / "junctions").iterdir())].count("merged")
    after = gradflow.open_run(folder).junctions
    assert after["skip_type"].tolist() == ["identity"] * 12
    assert after["epoch"].tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert "shortcut" not in after


def test_options_of_an_old_run_are_called_as_they_are_now(tmp_path):
    path = copy_of(2, tmp_path) / "tiny-seed0" / "run.json"
    options = {"shortcut_scale": 0.5, "probes": ["lesions", "shortcut_scaling"], "shortcut": "A"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"configuration": options}))
    recorded = gradflow.open_run(path.parent).configuration
    configuration = Configuration.from_json(recorded)
    assert (configuration.skip_scale, configuration.shortcut) == (0.5, "A")
    assert configuration.probes == ("lesions", "skip_scaling")


def test_run_of_version_1_whose_part_was_cut_short_is_named(tmp_path):
    folder = copy_of(1, tmp_path) / "tiny-seed0"
    part = next(iter(sorted(folder.glob("gradients/*"))))
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(RunError, match=part.name):
        _ = gradflow.open_run(folder).gradients
