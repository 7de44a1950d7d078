"""The command that writes a recorded run to TensorBoard and others afterwards."""

import csv
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import gradflow
from gradflow.export import main
from gradflow.runs.__main__ import main as check_runs
from gradflow.runs.format.schema import TABLES
from gradflow.runs.writing.lock import FolderLock
from gradflow.runs.writing.run import RunWriter


def lines(path):
    with path.open(newline="") as file:
        return {
            (one["name"], int(one["step"])): float(one["value"]) for one in csv.DictReader(file)
        }


def record(folder, sinks=(), **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, folder, optimizer=optimizer, sinks=sinks, **options) as tracer:
        for epoch in range(3):
            for _ in range(50):
                optimizer.zero_grad()
                model(torch.randn(3, 4)).square().sum().backward()
                optimizer.step()
            tracer.end_epoch(train_loss=float(epoch), best=None, note="text")


@pytest.mark.parametrize("every", ["step", "epoch"])
def test_afterwards_the_same_is_written_as_during_the_training(tmp_path, every, capsys):
    sink = gradflow.sinks.CSV(tmp_path / "during.csv", quantities="*", every=every)
    record(tmp_path / "run", sink, groups={"all": "*"}, histograms=7)
    arguments = ["--to", "csv", "--quantities", "*", "--every", every]
    assert main([str(tmp_path / "run"), *arguments]) == 0
    during, after = lines(tmp_path / "during.csv"), lines(tmp_path / "run" / "quantities.csv")
    assert len(during) > 100
    assert after == pytest.approx(during, nan_ok=True, rel=0)
    steps = len({step for _, step in during})
    assert capsys.readouterr().out == (
        f"run: {len(during):,} numbers of {steps} steps to CSV "
        f"({tmp_path / 'run' / 'quantities.csv'})\n"
    )


def test_tensorboard_reads_scalars_and_histograms_of_a_recorded_run(tmp_path, capsys):
    record(tmp_path / "run", histograms=True)
    arguments = ["--to", "tensorboard", "--place", str(tmp_path / "logs"), "--prefix", "mine"]
    assert main([str(tmp_path / "run"), *arguments]) == 0
    found = EventAccumulator(str(tmp_path / "logs"), size_guidance={"scalars": 0, "histograms": 0})
    found.Reload()
    run = gradflow.open_run(tmp_path / "run")
    norms = run.gradients[run.gradients.layer == "2"]
    events = found.Scalars("mine/gradient_norm/2")
    assert [one.step for one in events] == list(norms.step)
    assert [one.value for one in events] == pytest.approx(list(norms.norm), rel=1e-6)
    frame = run.activation_histograms
    drawn = found.Histograms("mine/activation_magnitudes/0")
    counts = list(frame[frame.layer == "0"].counts)
    assert [list(one.histogram_value.bucket)[1:] for one in drawn] == [list(one) for one in counts]
    # A second time they would show twice.
    assert main([str(tmp_path / "run"), *arguments]) == 1
    assert "has gradflow's event files already" in capsys.readouterr().err


def test_nan_is_written_and_a_missing_value_is_not(tmp_path):
    writer = RunWriter(tmp_path / "run", {})
    empty = {one.name: [None] * 3 for one in TABLES["parameters"].quantities}
    columns = empty | {
        "epoch": [1, 1, 1],
        "step": [0, 0, 0],
        "parameter": ["a", "b", "c"],
        "gradient_norm": np.ma.array([1.0, math.nan, 2.0], mask=[False, False, True]),
    }
    writer.append("parameters", columns, 0, 0)
    writer.close("complete")
    writer.release()
    chosen = ["--to", "csv", "--quantities", "parameter_gradient_norm"]
    assert main([str(tmp_path / "run"), *chosen]) == 0
    written = lines(tmp_path / "run" / "quantities.csv")
    assert [name for name, _ in written] == [
        "gradflow/parameter_gradient_norm/a",
        "gradflow/parameter_gradient_norm/b",
    ]
    assert math.isnan([*written.values()][1])


def test_each_run_of_an_experiment_has_a_place_of_its_own(tmp_path, capsys):
    for name in ("plain", "residual"):
        record(tmp_path / "all" / name)
    (tmp_path / "all" / "experiment.json").write_text(
        json.dumps({"schema_version": 3, "runs": ["plain", "residual"]})
    )
    place = ["--place", str(tmp_path / "out")]
    assert main([str(tmp_path / "all"), "--to", "csv, tensorboard", *place]) == 0
    assert lines(tmp_path / "out" / "plain.csv") == lines(tmp_path / "out" / "residual.csv")
    for name in ("plain", "residual"):
        assert list((tmp_path / "out" / name).glob("events.out.tfevents.*"))
    assert len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--to says where the numbers go: name one or several of tensorboard, wandb"),
        (["--to", "excel"], "--to knows no excel: name one or several of tensorboard, wandb"),
        (["--to", "csv", "--quantities", "gradientnorm"], "'gradientnorm' fits no quantity"),
        (["--to", "csv", "--quantities", ","], "--quantities names none"),
        (["--to", "csv", "--place", "run"], "run cannot be written: Is a directory"),
        (["--to", "tensorboard", "--place", "file"], "file cannot be made: File exists"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    RunWriter("run", {}).release()
    assert main(["run", *arguments]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1


def test_a_folder_without_a_run_is_an_error(tmp_path, capsys):
    assert main([str(tmp_path), "--to", "csv"]) == 1
    assert "is not a run folder" in capsys.readouterr().err


def test_a_run_without_rows_gives_an_empty_file(tmp_path, capsys):
    RunWriter(tmp_path / "run", {}).release()
    assert main([str(tmp_path / "run"), "--to", "csv"]) == 0
    assert lines(tmp_path / "run" / "quantities.csv") == {}
    assert capsys.readouterr().out.startswith("run: 0 numbers of 0 steps to CSV")


def test_the_report_is_put_among_the_artifacts(tmp_path, monkeypatch, capsys):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    record(tmp_path / "run")
    (tmp_path / "run" / "report.html").write_text("<p>the report</p>")
    store = (tmp_path / "store").as_uri()
    assert main([str(tmp_path / "run"), "--to", "mlflow", "--place", store]) == 0
    assert capsys.readouterr().out.endswith("with report.html\n")
    client = mlflow.MlflowClient(tracking_uri=store)
    identity = client.get_experiment_by_name("gradflow").experiment_id
    (found,) = client.search_runs([identity])
    assert [one.path for one in client.list_artifacts(found.info.run_id)] == ["report.html"]
    assert len(client.get_metric_history(found.info.run_id, "gradflow/gradient_norm/0")) == 150


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_the_report_is_put_among_the_files_of_a_run_of_wandb(tmp_path, monkeypatch, capsys):
    pytest.importorskip("wandb")
    (tmp_path / "logged").mkdir()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "logged"))
    record(tmp_path / "run")
    assert main([str(tmp_path / "run"), "--to", "wandb", "--place", "mine"]) == 0
    assert "There is no report to go with them" in capsys.readouterr().out
    (tmp_path / "run" / "report.html").write_text("<p>the report</p>")
    assert main([str(tmp_path / "run"), "--to", "wandb", "--place", "mine"]) == 0
    assert capsys.readouterr().out.endswith("with report.html\n")
    (sent,) = (tmp_path / "logged").rglob("offline-run-*/files/report.html")
    assert sent.read_text() == "<p>the report</p>"
    _, last = gradflow.open_run(tmp_path / "run").description["sinks"]
    assert (last["project"], last["kind"]) == ("mine", "W&B")
    assert (tmp_path / "run" / last["path"]).resolve() == sent.parent.parent.resolve()


def test_the_command_works_without_torch(tmp_path):
    record(tmp_path / "run")
    program = (
        "import sys\nfrom gradflow.export import main\n"
        f"code = main([{str(tmp_path / 'run')!r}, '--to', 'tensorboard,csv'])\n"
        "print(code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout.endswith("\n0 False\n"), done.stderr


def test_the_run_notes_where_it_was_exported_to_and_stays_whole(tmp_path, capsys):
    record(tmp_path / "run", gradflow.sinks.CSV(tmp_path / "during.csv"))
    before = (tmp_path / "run" / "manifest.jsonl").read_bytes()
    arguments = [str(tmp_path / "run"), "--quantities", "step_gradient_norm"]
    for place in ("a.csv", "b.csv", "a.csv"):
        assert main([*arguments, "--to", "csv", "--place", str(tmp_path / place)]) == 0
    during, *exported = gradflow.open_run(tmp_path / "run").description["sinks"]
    assert (during["path"], "exported" in during) == ("../during.csv", False)
    # What is written again takes the place of what it replaced.
    assert [one["path"] for one in exported] == ["../b.csv", "../a.csv"]
    assert all(one["exported"] and one["quantities"] == ["step_gradient_norm"] for one in exported)
    assert (tmp_path / "run" / "manifest.jsonl").read_bytes() == before
    capsys.readouterr()
    assert check_runs(["check", str(tmp_path / "run")]) == 0


def test_a_training_that_goes_on_keeps_what_was_noted(tmp_path):
    record(tmp_path / "run")
    assert main([str(tmp_path / "run"), "--to", "csv"]) == 0
    (exported,) = gradflow.open_run(tmp_path / "run").description["sinks"]
    sink = gradflow.sinks.Function(lambda *_: None)
    record(tmp_path / "run", sink, resume={})
    noted = gradflow.open_run(tmp_path / "run").description["sinks"]
    assert [one["kind"] for one in noted] == ["function", "CSV"]
    assert noted[1] == exported


@pytest.mark.parametrize("why", ["is being written by another process", "cannot be written"])
def test_a_run_that_cannot_be_changed_is_exported_all_the_same(tmp_path, capsys, why):
    record(tmp_path / "run")
    described = (tmp_path / "run" / "run.json").read_bytes()
    if "another" in why:
        lock = FolderLock(tmp_path / "run")
    else:  # as in a folder that may only be read, also for those who may write everywhere
        (tmp_path / "run" / ".lock").unlink(missing_ok=True)
        (tmp_path / "run" / ".lock").mkdir()
    place = tmp_path / "out.csv"
    assert main([str(tmp_path / "run"), "--to", "csv", "--place", str(place)]) == 0
    said = capsys.readouterr().err
    assert said.startswith("run: its report will not mention this, since ")
    assert why in said
    assert said.count("\n") == 1
    assert len(lines(place)) > 100
    assert (tmp_path / "run" / "run.json").read_bytes() == described
    if "another" in why:
        lock.release()
