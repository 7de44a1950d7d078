"""A folder has one writer, and its lock ends with the writer's process."""

import subprocess
import sys

import pytest

from gradflow.errors import RunError
from gradflow.runs.writing.lock import FolderLock
from gradflow.runs.writing.run import RunWriter

HOLD = """
import sys, time
from pathlib import Path
from gradflow.runs.writing.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_folder_another_process_writes_into_is_refused_until_it_is_killed(tmp_path, holder):
    with pytest.raises(RunError, match="is being written by another process"):
        FolderLock(tmp_path)
    holder.kill()
    holder.wait()
    with FolderLock(tmp_path):
        pass


def test_lock_is_held_within_the_block_alone(tmp_path):
    with FolderLock(tmp_path), pytest.raises(RunError, match="is being written"):
        FolderLock(tmp_path)
    FolderLock(tmp_path).release()


def test_second_writer_of_a_run_is_refused_and_a_failed_one_lets_go(tmp_path, small_run):
    folder = small_run.record(tmp_path / "run", 1)
    (folder / "manifest.jsonl").write_bytes(b"nonsense\n")
    for _ in range(2):
        with pytest.raises(RunError, match="damaged"):
            RunWriter.resume(folder, epoch=1, step=0)
    with RunWriter.reopen(folder), pytest.raises(RunError, match="is being written"):
        RunWriter.reopen(folder)


def test_folder_that_is_none_cannot_be_locked(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        FolderLock(tmp_path / "file")
