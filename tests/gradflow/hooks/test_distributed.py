"""Two processes on one machine record what a single process would."""

import importlib.util
import multiprocessing
import os
import runpy
import socket
import sys
import time
from multiprocessing import connection
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import gradflow

SCRIPT = Path(__file__).with_name("distributed_training.py")
TOLERANCE, CLIPPED_TO = 1e-5, 0.1


class Launched(NamedTuple):
    returncode: int
    stderr: str


def launch(folder, kind):
    """Run the script in two processes, as torchrun does: if one fails, the other is ended.

    They are forked from a process that has loaded torch already, which takes seconds each time.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gradflow.hooks.tracer", "torch.distributed.fsdp"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = [folder.parent / f"process{rank}.txt" for rank in range(2)]
    processes = [
        context.Process(target=run_script, args=(str(SCRIPT), folder, kind, rank, port, said[rank]))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    waiting, end = set(processes), time.monotonic() + 120
    while waiting and time.monotonic() < end:
        connection.wait([process.sentinel for process in waiting], timeout=1)
        waiting -= {process for process in waiting if process.exitcode is not None}
        if any(process.exitcode for process in processes):
            end = min(end, time.monotonic() + 10)  # what they have to say, they say by then
            for process in waiting:
                process.terminate()
    for process in processes:
        process.kill()
        process.join()
    errors = [path.read_text() for path in said if path.exists()]
    for path in said:
        path.unlink(missing_ok=True)
    return Launched(max(abs(process.exitcode) for process in processes), "".join(errors))


def run_script(script, folder, kind, rank, port, said):
    """What each process does: its errors go to the file `said`."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.argv = [script, str(folder), kind]
    torch.set_num_threads(1)
    runpy.run_path(script, run_name="__main__")


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


@pytest.fixture(scope="module", params=["ddp", "static", fsdp])
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
        "steps": None,
    }
    for table, key in keys.items():
        index = ["epoch", "step", key] if key else ["epoch", "step"]
        mine, theirs = (getattr(r, table).set_index(index).sort_index() for r in (run, single))
        assert list(mine.index) == list(theirs.index), table
        for column in theirs.select_dtypes("number").columns:
            assert mine[column].to_numpy() == pytest.approx(
                theirs[column].to_numpy(), rel=TOLERANCE, abs=TOLERANCE, nan_ok=True
            ), (table, column)


def test_the_total_norm_is_that_of_the_averaged_gradient_before_and_after_clipping(joint):
    folder, result = joint
    assert result.returncode == 0, result.stderr
    steps = gradflow.open_run(folder).steps
    assert (steps.backward_gradient_norm > 2 * CLIPPED_TO).all()
    assert steps.gradient_norm.tolist() == pytest.approx([CLIPPED_TO] * len(steps), rel=1e-4)


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
