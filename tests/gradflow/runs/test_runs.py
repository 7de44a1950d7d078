"""The reader reads what the writer wrote, and names damaged files."""

import json
import math
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import gradflow
from gradflow.errors import RunError
from gradflow.runs.format.manifest import MANIFEST_FILE
from gradflow.runs.format.schema import SCHEMA_VERSION, TABLES
from gradflow.runs.writing.run import ExperimentWriter, RunWriter

IMAGE_COLUMNS = [quantity.name for quantity in TABLES["images"].columns]
NAMES = {"name": ["a"], "subset": ["training"], "fingerprint": ["f"]}


def epoch_rows(epoch):
    return {"epoch": [epoch], "step": [epoch * 3 - 1], "train_loss": [1 / epoch]}


@pytest.fixture
def writer(tmp_path):
    return RunWriter(tmp_path / "run", {"network": "net", "seed": 7})


def test_parts_come_back_in_order_of_step_as_plain_frames(writer):
    writer.append("epochs", epoch_rows(2), 3, 5)
    writer.append("epochs", epoch_rows(1), 0, 2)
    epochs = gradflow.open_run(writer.folder).epochs
    assert type(epochs) is pd.DataFrame
    assert list(epochs.epoch) == [1, 2]
    assert list(epochs.train_loss) == [1.0, 0.5]


def test_a_value_not_observed_is_missing_and_an_observed_nan_is_stored(writer):
    columns = {
        "epoch": [1, 1],
        "step": [0, 0],
        "parameter": ["a", "b"],
        "weight_norm": [1.0, math.nan],
        "backward_gradient_norm": [None, 2.0],
        "gradient_norm": np.ma.array([0.0, 2.0], mask=[True, False]),
        "clipping_factor": [None, 1.0],
        "update_norm": [None, 0.0],
        "update_to_weight": [None, None],
        "optimizer": [None, "SGD"],
        "group": [None, 0],
        "learning_rate": [None, 0.1],
        "gradient_cosine": [None, 1.0],
    }
    writer.append("parameters", columns, 0, 0)
    frame = gradflow.open_run(writer.folder).parameters
    assert list(frame.gradient_norm.isna()) == [True, False]
    assert list(frame.update_norm.isna()) == [True, False]
    assert math.isnan(frame.weight_norm[1])


def test_a_table_not_recorded_is_empty_but_has_its_columns(writer):
    run = gradflow.open_run(writer.folder)
    for name, table in TABLES.items():
        frame = run.table(name)
        assert frame.empty
        assert list(frame.columns) == [quantity.name for quantity in table.columns]


def test_a_column_that_came_after_the_run_was_recorded_is_missing(writer):
    writer.append("images", {name: [1] for name in IMAGE_COLUMNS} | NAMES, 0, 0)
    (part,) = (writer.folder / "images").glob("part-*.parquet")
    pq.write_table(pq.read_table(part).drop_columns(["label"]), part)
    (writer.folder / MANIFEST_FILE).unlink()  # there was none then
    images = gradflow.open_run(writer.folder).images
    assert list(images.columns) == IMAGE_COLUMNS
    assert images.label.isna().all()
    assert list(images.name) == ["a"]


def test_columns_unknown_to_the_schema_are_refused_but_for_an_epochs_scalars(writer):
    with pytest.raises(ValueError, match=r"missing .*target.*unknown .*colour"):
        writer.append("predictions", {"epoch": [1], "colour": [2]}, 0, 0)
    writer.append("epochs", {"epoch": [1], "step": [0], "colour": [2.0]}, 0, 0)
    assert gradflow.open_run(writer.folder).epochs.colour[0] == 2.0


def test_temporary_files_of_an_interrupted_write_are_ignored(writer):
    writer.append("epochs", epoch_rows(1), 0, 2)
    (writer.folder / "epochs" / ".part-0000000003-0000000005.parquet.1.tmp").write_bytes(b"half")
    assert len(gradflow.open_run(writer.folder).epochs) == 1


@pytest.mark.parametrize("damage", [b"", b"PAR1 but not really", None])
def test_a_damaged_part_is_named(writer, damage):
    writer.append("epochs", epoch_rows(1), 0, 2)
    part = writer.folder / "epochs" / "part-0000000000-0000000002.parquet"
    part.write_bytes(part.read_bytes()[:-20] if damage is None else damage)
    with pytest.raises(RunError, match=r"part-0000000000-0000000002\.parquet is damaged"):
        _ = gradflow.open_run(writer.folder).epochs


def test_an_occupied_folder_is_refused_by_run_and_experiment(writer, tmp_path):
    for claim in (RunWriter, ExperimentWriter):
        with pytest.raises(RunError, match="already holds a run"):
            claim(writer.folder, {})


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be made"):
        RunWriter(tmp_path / "file" / "run", {})


def test_description_says_how_the_run_ended(writer):
    assert gradflow.open_run(writer.folder).description["status"] == "running"
    writer.close("complete")
    run = gradflow.open_run(writer.folder)
    assert run.description["status"] == "complete"
    assert (run.network, run.seed, run.name) == ("net", 7, "run")


def test_a_newer_schema_is_refused_in_a_sentence(writer):
    path = writer.folder / "run.json"
    content = json.loads(path.read_text()) | {"schema_version": SCHEMA_VERSION + 1}
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match="read it with a newer gradflow"):
        gradflow.open_run(writer.folder)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"schema_version": "one"}', "null"])
def test_a_description_that_is_none_is_refused(writer, text):
    (writer.folder / "run.json").write_text(text)
    with pytest.raises(RunError, match=r"run\.json"):
        gradflow.open_run(writer.folder)


def test_folders_that_hold_no_run_are_refused(tmp_path):
    with pytest.raises(RunError, match="there is no folder"):
        gradflow.open_run(tmp_path / "absent")
    with pytest.raises(RunError, match="is not a run folder"):
        gradflow.open_run(tmp_path)


def test_experiment_gives_its_started_runs_by_network(tmp_path):
    names = ["a-seed1", "b-seed1", "a-seed2"]
    ExperimentWriter(tmp_path / "exp", {"runs": names})
    with pytest.raises(RunError, match="has no run yet"):
        gradflow.open_experiment(tmp_path / "exp")
    for name in names[:2]:
        RunWriter(tmp_path / "exp" / name, {"network": name[0], "seed": 1})
    experiment = gradflow.open_experiment(tmp_path / "exp")
    assert experiment.networks == ["a", "b"]
    assert [run.name for run in experiment.of_network("a")] == ["a-seed1"]
    with pytest.raises(RunError, match="holds an experiment"):
        gradflow.open_run(tmp_path / "exp")


def test_a_single_run_is_an_experiment_of_one(writer):
    experiment = gradflow.open_experiment(writer.folder)
    assert [run.network for run in experiment.runs] == ["net"]


def test_folder_that_was_removed_while_it_was_open_is_named(writer):
    writer.append("epochs", epoch_rows(1), 0, 2)
    run = gradflow.open_run(writer.folder)
    writer.close("complete")
    shutil.rmtree(writer.folder)
    for read in (lambda: run.epochs, lambda: run.layer_history("gradients", "a", ["norm"])):
        with pytest.raises(RunError, match="no longer there"):
            read()
