"""A resumed training equals an uninterrupted one, whatever interrupted it, and when."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
from PIL import Image

import gradflow
from gradflow.hooks.tracer import Tracer
from gradflow.runs.format.files import STATE_FILE
from gradflow.runs.format.schema import TABLES
from gradflow.runs.writing.lock import LOCK_FILE, FolderLock
from gradflow.train_and_trace import main
from gradflow.training import checkpoints, loop

OPTIONS = ["--models", "plain20", "resnet20", "--epochs", "3", "--batch-size", "8"]
OPTIONS += ["--trace-every", "2", "--probes", "loss_slice", "sharpness", "lesions"]
# Results are equal bit for bit on the CPU only; tests on a GPU name it.
OPTIONS += ["--device", "cpu"]


class Interruption(BaseException):
    """An exception that no code catches."""


def command(images, folder):
    return [*OPTIONS, "--data", str(images), "--out", str(folder)]


@pytest.fixture(scope="module")
def uninterrupted(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted") / "experiment"
    assert main(command(images, folder)) == 0
    return folder


def recorded(folder):
    """Every table of every run without its times, and the best weights."""
    found = {}
    for run in gradflow.open_experiment(folder).runs:
        assert run.description["status"] == "complete"
        for name in TABLES:
            rows = run.table(name)
            timed = [column for column in rows if str(column).endswith("seconds")]
            found[run.name, name] = rows.drop(columns=timed)
        found[run.name, "best"] = checkpoints.load(run.folder / checkpoints.BEST)
    return found


def assert_same(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(value, second[key], check_exact=True)
        else:
            weights, others = value["state_dict"], second[key]["state_dict"]
            assert all(torch.equal(weights[name], others[name]) for name in weights)


# The places before and after these are tried each time, and many more in tests/faults.
covered = pytest.mark.slow


@pytest.mark.parametrize(
    ("place", "when"),
    [
        (Tracer, ("write_table", 1)),  # in the first epoch, before there is a state
        pytest.param(Tracer, ("end_epoch", 2), marks=covered),
        (loop, ("save_state", 2)),  # everything of the epoch is on disk but its state
        pytest.param(loop, ("evaluate", 5), marks=covered),
        (loop, ("discard_state", 1)),  # one run complete, its state still there
        (loop, ("save_state", 4)),  # in the second run
    ],
)
def test_resumed_training_equals_an_uninterrupted_one_bit_for_bit(
    place, when, images, uninterrupted, tmp_path, monkeypatch
):
    name, count = when
    original, calls = getattr(place, name), []

    def interrupt(*arguments, **options):
        calls.append(name)
        if len(calls) == count:
            raise Interruption
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, interrupt)
        with pytest.raises(Interruption):
            main(command(images, tmp_path / "run"))
    assert main(["--resume", str(tmp_path / "run")]) == 0
    assert_same(recorded(uninterrupted), recorded(tmp_path / "run"))
    assert not list(tmp_path.glob("run/*/state*"))


# That a kill loses nothing, nor a second one, tests/faults/test_kills.py shows at many more places.
@pytest.mark.slow
def test_training_killed_twice_equals_an_uninterrupted_one(images, uninterrupted, tmp_path):
    arguments = command(images, tmp_path / "run")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for attempt in range(2):
        process = subprocess.Popen(
            [sys.executable, "-m", "gradflow.train_and_trace", *arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        state = f"*/state-*{3 * (attempt + 1)}.pt"
        wait_for(tmp_path / "run", state, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        arguments = ["--resume", str(tmp_path / "run")]
    assert main(arguments) == 0
    assert_same(recorded(uninterrupted), recorded(tmp_path / "run"))


def wait_for(folder, pattern, process, seconds=60):
    end = time.monotonic() + seconds
    while not list(folder.glob(pattern)):
        assert process.poll() is None, "the training ended before it was killed"
        assert time.monotonic() < end
        time.sleep(0.005)


# `timeout` sends two, schedulers repeat theirs; what is right with many is right with one.
@pytest.mark.parametrize("times", [pytest.param(1, marks=pytest.mark.slow), 20])
def test_sigterm_ends_in_good_order_and_says_how_to_go_on(times, images, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "gradflow.train_and_trace", *command(images, tmp_path / "run")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(tmp_path / "run", "*/state.json", process)
    for _ in range(times):
        process.terminate()
        time.sleep(0.005)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "--resume" in errors
    assert "Traceback" not in errors
    run = gradflow.open_experiment(tmp_path / "run").runs[0]
    assert run.description["status"] == "interrupted"


def test_resuming_a_complete_experiment_changes_nothing(uninterrupted):
    def times():
        # Some versions of filelock change the lock file when it is opened again.
        files = (path for path in uninterrupted.rglob("*") if path.name != ".lock")
        return {path: path.stat().st_mtime_ns for path in files}

    before = times()
    assert main(["--resume", str(uninterrupted)]) == 0
    assert times() == before


@pytest.fixture(scope="module")
def interrupted(images, tmp_path_factory):
    """An experiment interrupted in its second epoch; for all tests, which take copies of it."""
    folder = tmp_path_factory.mktemp("interrupted") / "half"
    calls = []

    def interrupt(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    original = loop.evaluate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "evaluate", interrupt)
        assert main([*command(images, folder), "--no-recalibrate"]) == 130
    return folder


@pytest.fixture
def half(interrupted, tmp_path):
    return shutil.copytree(interrupted, tmp_path / "half")


def test_a_run_says_that_it_was_resumed_and_from_where(half):
    assert main(["--resume", str(half)]) == 0
    resumed = gradflow.open_experiment(half).runs[0].description["resumed"]
    assert [(entry["epoch"], entry["step"]) for entry in resumed] == [(2, 3)]


def test_states_may_be_saved_more_rarely(images, uninterrupted, tmp_path, monkeypatch):
    def interrupt(*_):
        raise Interruption

    with monkeypatch.context() as patch:
        patch.setattr(loop, "discard_state", interrupt)
        with pytest.raises(Interruption):
            main([*command(images, tmp_path / "run"), "--state-every", "2"])
    assert [path.name for path in tmp_path.glob("run/*/state-*")] == ["state-0000000006.pt"]
    assert main(["--resume", str(tmp_path / "run")]) == 0


def test_damaged_state_is_refused_in_a_sentence(half, capsys):
    (state,) = half.glob("*/state-*.pt")
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    assert main(["--resume", str(half)]) == 1
    message = " ".join(capsys.readouterr().err.split())
    assert "checksum" in message
    assert STATE_FILE in message


def test_another_option_than_those_recorded_is_refused(half, capsys):
    assert main(["--resume", str(half), "--epochs", "7"]) == 1
    assert "leave out --epochs" in " ".join(capsys.readouterr().err.split())


def test_images_that_are_not_the_same_are_refused(half, images, tmp_path, capsys):
    shutil.copytree(images, tmp_path / "changed")
    Image.new("RGB", (16, 16)).save(tmp_path / "changed" / "dark" / "3.png")
    assert main(["--resume", str(half), "--data", str(tmp_path / "changed")]) == 1
    assert "are not those that" in " ".join(capsys.readouterr().err.split())


def test_experiment_that_another_process_trains_in_is_refused(half, images, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in half.rglob("*") if path.is_file()}
    with FolderLock(half):
        assert main(["--resume", str(half)]) == 1
        assert "is being written by another process" in " ".join(capsys.readouterr().err.split())
    after = {path: path.stat().st_mtime_ns for path in half.rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before.get(path)} <= {half / LOCK_FILE}
    with FolderLock(tmp_path):  # not an experiment yet: another training is about to begin
        assert main(command(images, tmp_path)) == 1
    assert not (tmp_path / "experiment.json").exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [(".", "it has no experiment.json"), ("nowhere", "there is no folder"), ("run", "one run of")],
)
def test_a_folder_without_an_experiment_is_refused(half, tmp_path, capsys, name, expected):
    folder = half / "plain20-seed2025" if name == "run" else tmp_path / name
    assert main(["--resume", str(folder)]) == 1
    assert expected in " ".join(capsys.readouterr().err.split())


def test_images_that_have_moved_can_be_named(half, images, tmp_path):
    images.rename(tmp_path / "moved")
    try:
        assert main(["--resume", str(half), "--data", str(tmp_path / "moved")]) == 0
    finally:
        (tmp_path / "moved").rename(images)


DETERMINISTIC = """
import sys, torch
from gradflow.train_and_trace import main
torch.use_deterministic_algorithms(True)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_cuda_it_is_bit_for_bit_as_well_where_every_kernel_is_deterministic(images, tmp_path):
    def start(*arguments):
        return subprocess.Popen(
            [sys.executable, "-c", DETERMINISTIC, *map(str, arguments)],
            env={**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
            stdout=subprocess.DEVNULL,
        )

    def options(folder):
        return [*command(images, folder), "--device", "cuda"]

    assert start(*options(tmp_path / "whole")).wait() == 0
    process = start(*options(tmp_path / "run"))
    wait_for(tmp_path / "run", "*/state-*3.pt", process)
    process.kill()
    process.wait()
    assert start("--resume", tmp_path / "run").wait() == 0
    assert_same(recorded(tmp_path / "whole"), recorded(tmp_path / "run"))
