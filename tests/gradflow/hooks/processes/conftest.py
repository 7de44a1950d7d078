"""Several processes on one machine, and the run of a single one to compare theirs with."""

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

TOLERANCE = 1e-5
KEYS = {
    "activations": "layer",
    "gradients": "layer",
    "activation_histograms": "layer",
    "gradient_histograms": "layer",
    "junctions": "layer",
    "parameters": "parameter",
    "steps": "",
}
# What takes long to load, and is then there in every process that is forked.
LOADED_FIRST = [
    "gradflow.hooks.tracer",
    "gradflow.hooks.reduction.loops.compiled",
    "gradflow.runs.writing.run",
    "pandas",
    "torch._dynamo",
    "torch.distributed.fsdp",
    "torch.distributed.pipelining",
    "torch.distributed.tensor.parallel",
]


class Launched(NamedTuple):
    returncode: int
    stderr: str


@pytest.fixture(scope="session")
def launch():
    """Runs a script in several processes, as torchrun does: if one fails, the others are ended.

    Called with the script, a folder, the kind of training and the number of processes. They are
    forked from a process that has loaded torch already, which takes seconds each time.
    """
    return _launch


@pytest.fixture(scope="session")
def assert_same_rows():
    """Compares two runs: all tables, numbers to 1e-5; or only those of some layers."""
    return _assert_same_rows


def _launch(script, folder, kind, count=2):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED_FIRST)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = [folder.parent / f"process{rank}.txt" for rank in range(count)]
    arguments = (str(script), folder, kind, count, port)
    processes = [
        context.Process(target=_run_script, args=(*arguments, rank, said[rank]))
        for rank in range(count)
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


def _run_script(script, folder, kind, count, port, rank, said):
    """What each process does: its errors go to the file `said`."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.path.insert(0, str(Path(script).parent))
    sys.argv = [script, str(folder), kind]
    torch.set_num_threads(1)
    runpy.run_path(script, run_name="__main__")


def _assert_same_rows(mine, theirs, only=None):
    for table, key in KEYS.items():
        if not key and only is not None:
            continue  # totals over all layers
        index = ["epoch", "step", key] if key else ["epoch", "step"]
        found, wanted = (run.table(table).set_index(index).sort_index() for run in (mine, theirs))
        if only is not None:
            wanted = wanted[[only(name) for name in wanted.index.get_level_values(key)]]
        assert list(found.index) == list(wanted.index), table
        for column in wanted.select_dtypes("number").columns:
            assert found[column].to_numpy() == pytest.approx(
                wanted[column].to_numpy(), rel=TOLERANCE, abs=TOLERANCE, nan_ok=True
            ), (table, column)
        if "counts" in wanted:
            assert [*map(list, found.counts)] == [*map(list, wanted.counts)], table
