"""Two processes of a trainer write one run, whose rows are those of a single process."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import gradflow

SCRIPT = Path(__file__).parent / "distributed_trainers.py"


def launch(folder, trainer, count):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    if count > 1:
        here |= {
            "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "GROUP_RANK": "0",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test",
        }  # fmt: skip
    ranks = [
        {"RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {} for rank in range(count)
    ]
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, folder, trainer],
            env=here | rank,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ranks
    ]
    try:
        said = [process.communicate(timeout=180)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * count, "\n".join(said)
    return gradflow.open_run(folder)


# At every change, the same exchange is tested without a trainer (tests/gradflow/hooks/processes).
@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["lightning", "transformers"])
def test_two_processes_write_and_continue_one_run(tmp_path, assert_same_run, trainer):
    pytest.importorskip(trainer)
    together = launch(tmp_path / "together", trainer, 2)
    alone = launch(tmp_path / "alone", trainer, 1)
    # The input of the first is not the batch, but the positions, which each process has whole. The
    # gradient of the second is zero, but for rounding.
    without = ("position_embeddings", "key.bias")
    assert_same_run(together, alone, rtol=1e-3, without=without)
    assert together.epochs.epoch.tolist() == [1, 2, 3]
    assert together.description["status"] == "complete"
    assert len(together.description["resumed"]) == 1
    assert (together.steps.clipping_factor < 1).any()
