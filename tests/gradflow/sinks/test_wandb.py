"""W&B offline, read back from its file with W&B's own records."""

import json
import struct
from pathlib import Path

import pytest

import gradflow
from gradflow.sinks import WandB

wandb = pytest.importorskip("wandb")
Record = pytest.importorskip("wandb.proto.wandb_internal_pb2").Record
pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "logged").mkdir()
    return tmp_path / "logged"


def records(folder):
    """The records of each run, by the name of its file."""
    return {
        path.stem: [Record.FromString(one) for one in log_entries(path.read_bytes())]
        for path in folder.rglob("run-*.wandb")
    }


def log_entries(content):
    """The entries of a log in LevelDB's format: blocks of 32 KiB, of pieces with 7-byte heads."""
    place, entry = 7, b""
    while place < len(content):
        if 32768 - place % 32768 < 7:  # too little for a head: the rest of the block is empty
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        entry += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole entry, or the last piece of one
            yield entry
            entry = b""


def rows(of_run):
    """Each logged row as a mapping; an entry of a histogram has a path of names."""
    found = []
    for one in of_run:
        if one.WhichOneof("record_type") == "history":
            row = {}
            for item in one.history.item:
                path = [item.key] if item.key else list(item.nested_key)
                inner = row
                for name in path[:-1]:
                    inner = inner.setdefault(name, {})
                inner[path[-1]] = json.loads(item.value_json)
            found.append(row)
    return found


def test_values_and_histograms_are_those_of_the_run(train, expected, folder):
    run, _ = train(
        WandB(
            "mine",
            quantities=["gradient_norm", "gradient_magnitudes"],
            options={"dir": str(folder)},
        ),
        histograms=True,
        description={"seed": 5},
    )
    (of_run,) = records(folder).values()
    logged = rows(of_run)
    got = {
        (name, row["gradflow/step"]): value
        for row in logged
        for name, value in row.items()
        if name.startswith("gradflow/gradient_norm/")
    }
    assert got == pytest.approx(expected(run, "gradients", "norm", "gradient_norm"))
    drawn = {
        (name, row["gradflow/step"]): value
        for row in logged
        for name, value in row.items()
        if "magnitudes" in name
    }
    frame = run.gradient_histograms
    for one in frame[frame.counts.map(len) > 0].itertuples():
        value = drawn[f"gradflow/gradient_magnitudes/{one.layer}", one.step]
        assert value["values"] == list(one.counts)
        assert value["bins"][0] == one.lowest_exponent
    (begun,) = [one.run for one in of_run if one.WhichOneof("record_type") == "run"][:1]
    assert (begun.project, begun.display_name) == ("mine", "run")
    assert Path(run.description["sinks"][0]["place"]).is_relative_to(folder)


def test_a_run_of_the_users_goes_on_beside_it_and_a_given_one_is_written_to(train, folder):
    with wandb.init(project="theirs", dir=str(folder)) as theirs:
        options = {"dir": str(folder)}
        train(WandB(quantities="step_gradient_norm", options=options))
        train(WandB(run=theirs, quantities="step_gradient_norm"), folder="given", steps=2)
        theirs.log({"own": 1.0})
    by_run = {name: rows(of_run) for name, of_run in records(folder).items()}
    mine = by_run.pop(f"run-{theirs.id}")
    (beside,) = by_run.values()
    assert [row["gradflow/step"] for row in beside] == list(range(6))
    assert [row["gradflow/step"] for row in mine if "gradflow/step" in row] == list(range(4))
    assert [row["own"] for row in mine if "own" in row] == [1.0]


def test_a_training_that_is_resumed_goes_on_with_the_same_run(train, folder):
    options = {"dir": str(folder)}
    train(WandB("mine", quantities="step_gradient_norm", options=options))
    train(WandB(quantities="step_gradient_norm", options=options), resume={})
    begun = {
        (path.parent.name, one.run.run_id, one.run.project)
        for path in folder.rglob("run-*.wandb")
        for one in (Record.FromString(entry) for entry in log_entries(path.read_bytes()))
        if one.WhichOneof("record_type") == "run"
    }
    assert len({name for name, _, _ in begun}) == 2  # offline, each process has a folder
    ((identity, project),) = {one[1:] for one in begun}
    (entry,) = gradflow.open_run(folder.parent / "run").description["sinks"]
    assert (entry["run"], entry["project"], project) == (identity, "mine", "mine")
    named = [entry["path"], *entry["earlier_paths"]]
    assert {Path(one).name for one in named} == {name for name, _, _ in begun}


def test_a_run_of_an_experiment_is_in_its_group(train, folder):
    (folder.parent / "experiment.json").write_text("{}")
    train(WandB("mine", quantities="step_gradient_norm", options={"dir": str(folder)}))
    (of_run,) = records(folder).values()
    (begun,) = [one.run for one in of_run if one.WhichOneof("record_type") == "run"][:1]
    assert (begun.run_group, begun.display_name) == (folder.parent.name, "run")
