"""The probe command on finished runs, as a user runs it, and its errors."""

import json
import shutil

import pandas as pd
import pytest
import torch
from PIL import Image

import gradflow
from gradflow import probe, train_and_trace
from gradflow.training import checkpoints

PROBES = ["noise_scale", "path_lengths"]
SMALL = ["--models", "resnet20", "--epochs", "2", "--batch-size", "8", "--no-recalibrate"]
SMALL += ["--device", "cpu"]


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    """Trains with further options; the run's folder."""

    def train(*options):
        folder = tmp_path_factory.mktemp("out") / "experiment"
        arguments = [*SMALL, "--data", str(images), "--out", str(folder), *options]
        assert train_and_trace.main(arguments) == 0
        return folder / "resnet20-seed2025"

    return train


@pytest.fixture(scope="module")
def unprobed(trained):
    return trained("--probes", "none", "--checkpoints", "every")


@pytest.fixture
def run(unprobed, tmp_path):
    return shutil.copytree(unprobed, tmp_path / "resnet20-seed2025")


def run_probes(folder, *options):
    return probe.main([str(folder), "--probes", *PROBES, "--device", "cpu", *options])


def test_a_finished_run_gives_what_probes_in_training_give(trained, run):
    during = gradflow.open_run(trained("--probes", *PROBES))
    assert run_probes(run) == 0
    after = gradflow.open_run(run)
    for table in ("noise_scale", "path_lengths"):
        rows = after.table(table)
        assert set(rows["epoch"]) == {1, 2}
        pd.testing.assert_frame_equal(rows, during.table(table))
    assert sorted(after.table("probe_costs")["probe"]) == sorted(2 * PROBES)


def test_results_that_a_run_already_has_stay_as_they_are(run, capsys):
    probe.main([str(run), "--probes", "noise_scale"])
    before = gradflow.open_run(run).table("noise_scale")
    capsys.readouterr()
    assert run_probes(run) == 0
    said = capsys.readouterr().out
    assert "noise_scale" not in said
    assert "path_lengths" in said
    run_again = gradflow.open_run(run)
    pd.testing.assert_frame_equal(run_again.table("noise_scale"), before)
    assert len(run_again.table("probe_costs")) == 4
    run_probes(run)
    assert "nothing to do" in capsys.readouterr().out


def test_with_the_best_weights_alone_probes_run_on_these(run):
    shutil.rmtree(run / "checkpoints")
    best = checkpoints.load(run / checkpoints.BEST)["epoch"]
    assert run_probes(run) == 0
    assert set(gradflow.open_run(run).table("path_lengths")["epoch"]) == {best}


def test_control_characters_in_a_name_are_shown_as_text(run, tmp_path, capsys):
    shutil.rmtree(run / "checkpoints")
    named = run.rename(tmp_path / "a\x1b[31mb")
    assert run_probes(named) == 0
    said = capsys.readouterr().out
    assert said.startswith("a\\x1b[31mb\n")
    assert "\x1b" not in said


def fails(folder, capsys, *options):
    """Check that the command ends with status 1; return its message on standard error."""
    assert run_probes(folder, *options) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert "Traceback" not in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    return captured.err


def test_other_images_are_refused(run, images, tmp_path, capsys):
    other = shutil.copytree(images, tmp_path / "other")
    Image.new("RGB", (16, 16)).save(other / "dark" / "0.png")
    assert "not those that" in fails(run, capsys, "--data", str(other))


def test_a_run_of_an_imported_tracer_is_refused(tmp_path, capsys):
    model = torch.nn.Linear(2, 1)
    with gradflow.Tracer(model, tmp_path / "mine") as tracer:
        model(torch.ones(1, 2)).sum().backward()
        tracer.step()
        tracer.end_epoch()
    assert "not made by train_and_trace" in fails(tmp_path / "mine", capsys)


def test_a_run_without_weights_is_refused(run, capsys):
    shutil.rmtree(run / "checkpoints")
    (run / checkpoints.BEST).unlink()
    assert "there are no weights" in fails(run, capsys)


def test_files_that_are_not_weights_are_refused(run, capsys):
    (run / "checkpoints" / "epoch-0001.pt").write_bytes(b"not weights")
    assert "cannot be read" in fails(run, capsys)


def test_a_run_that_is_not_finished_is_refused(run, capsys):
    description = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(description | {"status": "running"}))
    assert "not finished" in fails(run, capsys)


def test_an_unknown_probe_is_refused(run, capsys):
    assert probe.main([str(run), "--probes", "lesion"]) == 1
    assert "no probe called 'lesion'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_lack_of_memory_is_reported_in_a_sentence(run, capsys, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(probe, "rebuild_job", fail)
    assert probe.main([str(run)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: out of memory (")
    assert said.endswith("): what was measured so far is kept\n")
