"""A user's error is one sentence and an exit code; a bug keeps its traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from gradflow.command_line.exit_codes import run_command
from gradflow.errors import DataError

HOME = Path(__file__).parents[3]
ENDLESS = """
import sys
from gradflow.command_line.exit_codes import run_command
def work():
    while True:
        print("line")
sys.exit(run_command(work, str))
"""


def raising(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (3, 3)])
def test_the_exit_code_is_that_of_the_work(result, code):
    assert run_command(lambda: result, str) == code


def test_an_error_is_one_sentence_and_1(capsys):
    assert run_command(raising(DataError("no [red]image[/] in x")), str) == 1
    assert capsys.readouterr() == ("", "error: no [red]image[/] in x\n")


def test_an_interrupt_is_the_sentence_asked_for_then_and_130(capsys):
    said = []

    def interrupted():
        said.append("asked")
        return "interrupted: kept"

    assert run_command(raising(KeyboardInterrupt()), interrupted) == 130
    assert said == ["asked"]
    assert capsys.readouterr() == ("", "interrupted: kept\n")


def test_a_defect_passes_through():
    with pytest.raises(ZeroDivisionError):
        run_command(raising(ZeroDivisionError()), str)


def test_a_reader_that_has_seen_enough_ends_it_quietly():
    command = f"set -o pipefail; {sys.executable} -c '{ENDLESS}' | head -1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=HOME, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "line\n", "")


@pytest.mark.parametrize("written", ["print('line')", "print('line', flush=True)"])
def test_an_output_that_takes_nothing_is_one_sentence(written):
    program = (
        "import sys; from gradflow.command_line.exit_codes import run_command;"
        f"sys.exit(run_command(lambda: {written}, str))"
    )
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=HOME, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr == b"error: the output cannot be written: No space left on device\n"


def test_letters_that_the_output_lacks_are_no_error():
    program = (
        "import sys; from gradflow.command_line.exit_codes import run_command;"
        "sys.exit(run_command(lambda: print(chr(0x732b)), str))"
    )
    command = ["env", "PYTHONIOENCODING=ascii:strict", sys.executable, "-c", program]
    done = subprocess.run(command, cwd=HOME, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"?\n", b"")


@pytest.mark.parametrize("asked", ["print('line')", "sys.stdout.isatty()"])
def test_without_an_output_nothing_is_said(asked):
    program = (
        "import sys; from gradflow.command_line.exit_codes import run_command;"
        f"sys.exit(run_command(lambda: {asked}, str))"
    )
    command = ["bash", "-c", f'{sys.executable} -c "{program}" >&-']
    done = subprocess.run(command, cwd=HOME, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
