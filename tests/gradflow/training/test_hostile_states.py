"""`--resume` with a manipulated state: one sentence of error, and no recorded row is lost."""

import hashlib
import json
import shutil

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

import gradflow
from gradflow.runs.format.manifest import MANIFEST_FILE
from gradflow.runs.reading.run import open_run
from gradflow.train_and_trace import main
from gradflow.training import checkpoints, loop
from gradflow.training.resumption import read_summaries

RUN = "plain20-seed2025"


@pytest.fixture(scope="module")
def recorded(images, tmp_path_factory):
    """An experiment interrupted in its second epoch, and the same one complete."""
    folder = tmp_path_factory.mktemp("out")
    options = ["--models", "plain20", "--epochs", "2", "--batch-size", "8", "--probes", "none"]
    arguments = [*options, "--data", str(images), "--no-recalibrate", "--out"]
    calls = []

    def interrupt(*given):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*given)

    original = loop.evaluate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "evaluate", interrupt)
        assert main([*arguments, str(folder / "half")]) == 130
    assert main([*arguments, str(folder / "complete")]) == 0
    return folder


@pytest.fixture
def half(recorded, tmp_path):
    return shutil.copytree(recorded / "half", tmp_path / "half")


def change(half, *path, to):
    """Put `to` at `path` of the state, with the right checksum."""
    run = half / RUN
    entry = json.loads((run / "state.json").read_text())
    state = torch.load(run / entry["file"], weights_only=True)
    place = state
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    data = checkpoints.serialize(state)
    (run / entry["file"]).write_bytes(data)
    entry["sha256"] = hashlib.sha256(data).hexdigest()
    (run / "state.json").write_text(json.dumps(entry))


def refusal(half, capsys):
    capsys.readouterr()
    assert main(["--resume", str(half)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.removesuffix("\n").isprintable()
    return said


def rows(half):
    return len(gradflow.open_experiment(half).runs[0].gradients)


@pytest.mark.parametrize("tracer", [None, [], "x", 1])
def test_an_invalid_tracer_state_is_refused(half, capsys, tracer):
    change(half, "tracer", to=tracer)
    assert "it is not the state of a tracer" in refusal(half, capsys)


@pytest.mark.parametrize("entry", ["epoch", "step"])
@pytest.mark.parametrize("value", ["x", None, -5, 1.5, True, 2**63, float("nan"), torch.tensor(3)])
def test_an_invalid_epoch_or_step_is_refused_before_rows_are_removed(half, capsys, entry, value):
    before = rows(half)
    change(half, "tracer", entry, to=value)
    assert "its epoch or step is not a valid number" in refusal(half, capsys)
    assert rows(half) == before > 0


def test_a_state_of_an_epoch_beyond_the_last_is_refused(half, capsys):
    change(half, "tracer", "epoch", to=2**31 - 1)
    assert "its epoch is after the last epoch" in refusal(half, capsys)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("exp_avg", torch.zeros(2)),
        ("exp_avg", "x"),
        ("exp_avg_sq", None),
        ("step", torch.zeros(3)),
        ("step", torch.tensor(-1.0)),
        ("step", torch.tensor(float("nan"))),
    ],
)
def test_an_optimizer_of_other_parameters_is_refused(half, capsys, entry, value):
    change(half, "optimizer", "state", 0, entry, to=value)
    assert "its optimizer state " in refusal(half, capsys)


def test_resuming_works_with_averages_that_share_their_memory(half):
    change(half, "optimizer", "state", 0, "exp_avg", to=torch.zeros(1).expand(16, 3, 3, 3))
    assert main(["--resume", str(half)]) == 0


@pytest.mark.parametrize(
    ("setting", "value"), [("lr", "x"), ("betas", None), ("amsgrad", True), ("capturable", True)]
)
def test_settings_of_the_optimizer_are_those_of_the_configuration(
    recorded, half, setting, value, capsys
):
    change(half, "optimizer", "param_groups", 0, setting, to=value)
    assert main(["--resume", str(half)]) == 0
    weights = [
        checkpoints.load(folder / RUN / "best.pt")["state_dict"]
        for folder in (half, recorded / "complete")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


@pytest.mark.parametrize(
    ("entry", "value"),
    [("prediction", torch.zeros(3)), ("target", None), ("loss", "x"), ("image", torch.zeros(9))],
)
def test_a_validation_of_other_images_is_refused(half, capsys, entry, value):
    change(half, "validation", entry, to=value)
    assert "its validation results belong to other images" in refusal(half, capsys)


def without(frame):
    return frame.drop(columns="val_accuracy")


def as_text(frame):
    return frame.assign(val_accuracy="x")


def unknown(frame):
    return frame.assign(val_accuracy=pd.Series([None] * len(frame), dtype="float64"))


def older(frame):
    return frame.drop(columns="val_balanced_accuracy")


def test_epochs_of_an_older_version_without_balanced_accuracy_are_read(recorded, tmp_path):
    folder = shutil.copytree(recorded / "complete", tmp_path / "complete")
    (folder / RUN / MANIFEST_FILE).unlink()
    for path in (folder / RUN / "epochs").glob("*.parquet"):
        older(pq.read_table(path).to_pandas()).to_parquet(path)
    summaries = read_summaries(open_run(folder / RUN))
    assert [summary.val_balanced_accuracy for summary in summaries] == [None] * len(summaries)


def none(frame):
    return frame.head(0)


@pytest.mark.parametrize("forge", [without, as_text, unknown, none])
def test_epochs_that_train_and_trace_did_not_write_are_refused(recorded, tmp_path, capsys, forge):
    folder = shutil.copytree(recorded / "complete", tmp_path / "complete")
    (folder / RUN / MANIFEST_FILE).unlink()
    for path in (folder / RUN / "epochs").glob("*.parquet"):
        forge(pq.read_table(path).to_pandas()).to_parquet(path)
    said = refusal(folder, capsys)
    assert "was not written by train_and_trace" in said
