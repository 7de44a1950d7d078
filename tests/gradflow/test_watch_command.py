"""The command `python -m gradflow.report --watch`, in a process of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gradflow import report
from gradflow.live import watch as watching

HOME = Path(report.__file__).resolve().parent.parent
PATIENCE = 60.0


def run_command(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(HOME), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "gradflow.report", *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_interrupt_ends_with_130_and_a_sentence(tmp_path):
    command = run_command(str(tmp_path / "absent"), "--watch")
    assert command.stdout is not None
    assert "follows it" in command.stdout.readline()
    assert "waiting" in command.stdout.readline()
    command.send_signal(signal.SIGINT)
    printed, error = command.communicate(timeout=PATIENCE)
    assert (command.returncode, printed, error) == (130, "", "interrupted: no report was built\n")


def test_port_in_use_is_one_sentence_and_exit_code_1(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(watching, "_lower_priority", lambda: None)
    with watching.PageServer(b"", "", "") as taken:
        assert report.main([str(tmp_path), "--watch", "--port", str(taken.port)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: port {taken.port} of 127.0.0.1 cannot be used")
    assert error.count("\n") == 1


def test_two_folders_are_one_too_many(tmp_path, capsys):
    assert report.main([str(tmp_path), str(tmp_path.parent), "--watch"]) == 1
    assert capsys.readouterr().err.startswith("error: --watch follows one experiment or run")


@pytest.mark.slow
def test_real_training_is_followed_in_a_real_browser(tmp_path, open_address):
    folder = tmp_path / "trial"
    watch = run_command(str(folder), "--watch", "--format", "html")
    assert watch.stdout is not None
    page = open_address(watch.stdout.readline().split()[0])
    train = subprocess.Popen(
        [sys.executable, "-m", "gradflow.train_and_trace", "--data", "digits", "--image-size", "8",
         "--models", "plain20", "resnet20", "--epochs", "3", "--trace-every", "10",
         "--out", str(folder)],
        env={**os.environ, "PYTHONPATH": str(HOME), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    page.wait_for_selector("h1:has-text('Gradient flow in plain20')", timeout=180_000)
    assert "is still running" in page.inner_text("body")
    page.wait_for_selector(
        "#live :text('6 of 6 epochs in 2 runs; training has ended')", timeout=300_000
    )
    assert train.wait(60) == 0
    printed, error = watch.communicate(timeout=120)
    assert (watch.returncode, error) == (0, "")
    assert "6 of 6 epochs in 2 runs, training has ended" in printed
    assert "still running" not in page.inner_text("body")
    assert "This section failed" not in page.inner_text("body")
