"""Two processes on one machine record what a single process would."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gradflow

SCRIPT = Path(__file__).with_name("distributed_training.py")
TOLERANCE = 1e-5


def launch(folder, kind):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(SCRIPT), str(folder), kind]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("distributed_training", SCRIPT)
    training = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(training)
    folder = tmp_path_factory.mktemp("single") / "run"
    training.train(training.make_model(), folder, slice(None))
    return gradflow.open_run(folder)


# Earlier torch shards on CUDA alone: its all-gather asks for what streams of the CPU do not have.
SHARDS_ON_THE_CPU = hasattr(torch.cpu.Stream, "record_event")
fsdp = pytest.param(
    "fsdp", marks=pytest.mark.skipif(not SHARDS_ON_THE_CPU, reason="torch shards on CUDA alone")
)


@pytest.fixture(scope="module", params=["ddp", fsdp])
def joint(request, tmp_path_factory):
    """The folder of a run of two processes, and what their launcher says of them."""
    folder = tmp_path_factory.mktemp("joint") / "run"
    return folder, launch(folder, request.param)


def test_two_processes_record_what_one_does(joint, single):
    folder, result = joint
    assert result.returncode == 0, result.stderr
    run = gradflow.open_run(folder)
    assert run.description["status"] == "complete"
    keys = {
        "activations": "layer",
        "gradients": "layer",
        "junctions": "layer",
        "parameters": "parameter",
    }
    for table, key in keys.items():
        index = ["epoch", "step", key]
        mine, theirs = (getattr(r, table).set_index(index).sort_index() for r in (run, single))
        assert list(mine.index) == list(theirs.index), table
        for column in theirs.select_dtypes("number").columns:
            assert mine[column].to_numpy() == pytest.approx(
                theirs[column].to_numpy(), rel=TOLERANCE, abs=TOLERANCE, nan_ok=True
            ), (table, column)


def test_one_process_writes_and_both_end(joint):
    folder, result = joint
    assert result.returncode == 0, result.stderr
    assert [path.name for path in folder.parent.iterdir()] == ["run"]
    parts = sorted(path.name for path in (folder / "gradients").iterdir())
    assert parts == ["part-0000000000-0000000001.parquet", "part-0000000002-0000000002.parquet"]


def test_processes_that_run_different_layers_fail(tmp_path):
    result = launch(tmp_path / "run", "uneven")
    assert result.returncode != 0
    assert "observed different layers or steps" in result.stderr


def test_a_process_that_dies_leaves_a_readable_run(tmp_path):
    result = launch(tmp_path / "run", "dies")
    assert result.returncode != 0
    run = gradflow.open_run(tmp_path / "run")
    assert list(run.epochs.epoch) == [1]
    assert sorted(set(run.gradients.step)) == [0, 1]
