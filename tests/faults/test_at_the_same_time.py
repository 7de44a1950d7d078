"""Other processes and a clock that jumps back harm neither the training nor its run."""

import os
import signal
import time
from datetime import datetime

from fault_checks import check_end, check_interrupted
from fault_injection import Circumstances, start

import gradflow

MERGING = Circumstances(merged_at_once=2)


def wait_for(folder, pattern, training):
    end = time.monotonic() + 60
    while not list(folder.glob(pattern)):
        assert training.process.is_alive(), training.errors
        assert time.monotonic() < end
        time.sleep(0.002)


def content_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_second_writer_is_refused_until_the_first_is_dead(reference, tmp_path):
    folder = tmp_path / "experiment"
    first = start(reference.command(folder), folder, tmp_path / "first", MERGING)
    wait_for(folder, "*/state.json", first)
    os.kill(first.process.pid, signal.SIGSTOP)
    before = content_of(folder)
    for arguments, expected in (
        (["--resume", str(folder)], "is being written by another process"),
        (reference.command(folder), "holds a"),
    ):
        second = start(arguments, folder, tmp_path / "second")
        assert second.wait() == 1
        assert expected in second.errors
        assert len(second.errors.splitlines()) == 1
    assert content_of(folder) == before
    first.process.kill()
    first.wait()
    third = start(["--resume", str(folder)], folder, tmp_path / "third", MERGING)
    assert third.wait() == 0, third.errors
    check_end(folder, reference)


def test_each_look_at_a_run_being_written_sees_the_beginning_of_the_whole(reference, tmp_path):
    folder = tmp_path / "experiment"
    training = start(reference.command(folder), folder, tmp_path / "log", MERGING)
    looks = 0
    while training.process.is_alive():
        check_interrupted(folder, reference)
        looks += bool(list(folder.glob("*/gradients/*.parquet")))
    assert training.wait() == 0, training.errors
    assert looks > 2
    check_end(folder, reference)


def test_clock_that_jumps_back_changes_nothing_but_the_times_told(reference, tmp_path):
    folder = tmp_path / "experiment"
    backward = Circumstances(hours_back=0, merged_at_once=2)
    killed = start(reference.command(folder), folder, tmp_path / "log", backward)
    wait_for(folder, "*/state.json", killed)
    killed.process.kill()
    killed.wait()
    check_interrupted(folder, reference)
    backward = Circumstances(hours_back=1000, merged_at_once=2)
    resumed = start(["--resume", str(folder)], folder, tmp_path / "log", backward)
    assert resumed.wait() == 0, resumed.errors
    check_end(folder, reference)
    (run,) = gradflow.open_experiment(folder).runs
    times = [datetime.fromisoformat(run.description[name]) for name in ("created", "ended")]
    assert times[1] < times[0]
