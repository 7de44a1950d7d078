"""Networks trained at the same time, each in its process, are those of one after another."""

import io
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import pytest
from rich.console import Console

import gradflow
from gradflow.runs.format.schema import TABLES
from gradflow.training import experiment
from gradflow.training.configuration import Configuration
from gradflow.training.console import ConsoleProgress, Heading, progress_bar
from gradflow.training.experiment import SomeFailedError, make_plan
from gradflow.training.loop import EpochSummary
from gradflow.training.side_by_side import Failure, run_side_by_side

OPTIONS = ["--models", "plain20", "resnet20", "--epochs", "2", "--batch-size", "8"]
OPTIONS += ["--probes", "none", "--device", "cpu", "--no-recalibrate"]


@pytest.fixture(scope="module")
def compiled_loops():
    """Has the loops in numba's cache: the process that compiles them may add in another order."""
    names = ("loops_module", "threads_module", "addresses_module")
    code = "; ".join(f"cpu.{name}()" for name in names)
    code = f"from gradflow.hooks.reduction import cpu; {code}"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def one_fails(images, tmp_path_factory, compiled_loops):
    """Two networks side by side, one of which finds another run in its folder."""
    folder = tmp_path_factory.mktemp("side") / "run"
    options = Configuration(
        data=str(images), models=("plain20", "resnet20"), epochs=2, batch_size=8, device="cpu",
        probes=("none",), recalibrate=False, out=folder, processes=2,
    )  # fmt: skip
    jobs = make_plan(options).jobs()
    jobs[0].folder.mkdir(parents=True)
    (jobs[0].folder / "run.json").write_text("{}")
    output = io.StringIO()
    console = Console(file=output, width=80)
    heading = Heading(console)
    with progress_bar(console) as bar:
        results = run_side_by_side(
            jobs,
            partial(experiment._trained, resumed=False),
            lambda job: ConsoleProgress(console, bar, job, job.steps_per_epoch, heading),
            2,
        )
    return folder, jobs, results, output.getvalue()


@pytest.mark.slow
def test_an_error_in_one_leaves_the_other_alone(one_fails):
    _, jobs, results, _ = one_fails
    assert isinstance(results[0], Failure)
    assert "already holds a run" in results[0].reason
    assert not results[0].trace
    assert [summary.epoch for summary in results[1].epochs] == [1, 2]
    assert gradflow.open_run(jobs[1].folder).description["status"] == "complete"


@pytest.mark.slow
def test_the_error_names_the_run_and_keeps_the_results_of_the_others(one_fails):
    folder, jobs, results, _ = one_fails
    with pytest.raises(SomeFailedError, match=r"1 of 2 trainings failed \(plain20-seed2025: ") as e:
        experiment._all_trained(jobs, results, folder)
    assert [trained.network for trained in e.value.trained] == ["resnet20"]
    assert "--resume" in str(e.value)


@pytest.mark.slow
def test_the_results_are_bit_for_bit_those_of_one_after_another(one_fails, images, tmp_path):
    _, jobs, _, _ = one_fails
    alone = [*OPTIONS, "--models", "resnet20", "--data", str(images), "--out", str(tmp_path / "x")]
    command = [sys.executable, "-m", "gradflow.train_and_trace", *alone]
    subprocess.run(command, check=True, capture_output=True)  # this process may have compiled
    (expected,) = gradflow.open_experiment(tmp_path / "x").runs
    found = gradflow.open_run(jobs[1].folder)
    assert len(found.gradients)
    for name in TABLES:
        columns = [c for c in found.table(name) if not str(c).endswith("seconds")]
        assert found.table(name)[columns].equals(expected.table(name)[columns]), name


def test_lines_stand_under_the_name_of_their_run(images, tmp_path):
    options = Configuration(data=str(images), batch_size=8, processes=2, device="cpu")
    jobs = make_plan(options).jobs()
    output = io.StringIO()
    console = Console(file=output, width=80)
    heading = Heading(console)
    with progress_bar(console) as bar:
        shown = [ConsoleProgress(console, bar, job, 3, heading) for job in jobs]
        for run, epoch in ((0, 1), (1, 1), (1, 2), (0, 2)):
            summary = EpochSummary(epoch, 1.5, 0.5, 1.25, 0.5, None, None, 3.0, False)
            shown[run].on_epoch_end(summary)
    lines = [line.strip() for line in output.getvalue().splitlines()]
    epoch = "epoch  {}/10  train 1.500 50.0%  val 1.250 50.0%    3 s"
    plain, residual = "plain34, seed 2025", "resnet34, seed 2025"
    assert lines == [
        "", plain, epoch.format(1), residual, epoch.format(1), epoch.format(2), plain,
        epoch.format(2),
    ]  # fmt: skip


class Deadly:
    """Ends the process that unpickles it."""

    def __reduce__(self):
        return os._exit, (7,)


@pytest.mark.slow
def test_a_process_that_dies_is_a_failure_with_its_exit_code(images, tmp_path):
    job = make_plan(Configuration(data=str(images), batch_size=8, device="cpu")).jobs()[0]
    job = replace(job, folder=tmp_path / "a-run")
    (result,) = run_side_by_side([job], Deadly(), lambda _: None, 1)
    assert result == Failure("its process ended with the exit code 7")


@pytest.mark.slow
def test_ctrl_c_ends_all_in_good_order(images, tmp_path):
    command = [sys.executable, "-m", "gradflow.train_and_trace", *OPTIONS, "--processes", "2"]
    command += ["--epochs", "10000", "--data", str(images), "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    end = time.monotonic() + 120
    while len(list(tmp_path.glob("run/*/state.json"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes at once
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "go on with --resume" in errors
    assert "Traceback" not in errors
    runs = gradflow.open_experiment(tmp_path / "run").runs
    assert [run.description["status"] for run in runs] == ["interrupted"] * 2
    while is_alive(process.pid):  # Python's own helper process ends a little later
        assert time.monotonic() < end
        time.sleep(0.02)


def is_alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
