"""What `python -m gradflow.report` loads: its own packages, never torch, little for `--help`."""

import os
from pathlib import Path

import pytest

from gradflow import report
from gradflow.runs.writing.run import RunWriter

HOME = Path(report.__file__).resolve().parent.parent
LOADS_NO_TORCH = """
import sys
from gradflow.report import main
code = main([{folder!r}])
{last}
loaded = sorted({{"torch", "torchvision"}} & sys.modules.keys())
sys.exit(f"loaded {{loaded}}" if loaded else code)
"""


def test_packages_of_the_same_names_in_the_working_folder_are_not_imported(
    tmp_path, in_fresh_process
):
    (tmp_path / "analyses").mkdir()
    for name in ("analyses/__init__.py", "reports.py"):
        (tmp_path / name).write_text("raise RuntimeError('imported')")
    RunWriter(tmp_path / "mine", {"network": "plain34", "seed": 1}).close("complete")
    done = in_fresh_process(["-m", "gradflow.report", "mine", "--format", "json"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "mine" / "report.json").exists()


@pytest.mark.parametrize("name", ["reports", "analyses"])
def test_package_of_the_same_name_elsewhere_on_the_path_is_named(tmp_path, name, in_fresh_process):
    other = tmp_path / "theirs" / name
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise RuntimeError('imported')")
    command = ["-m", "gradflow.report", "--format", "html"]
    done = in_fresh_process(command, tmp_path, tmp_path / "theirs")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: the package {name!r} was found in {other}")
    assert str(HOME / name) in done.stderr
    assert done.stderr.count("\n") == 1


def test_output_folder_called_reports_does_no_harm(tmp_path, in_fresh_process):
    (tmp_path / "reports").mkdir()
    done = in_fresh_process(["-m", "gradflow.report"], tmp_path)
    assert done.stderr.startswith("error: there is no experiment in runs")


def test_help_is_quick_and_loads_nothing_slow(tmp_path, in_fresh_process):
    code = (
        "import sys\nfrom gradflow.report import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(repr(sorted({'torch', 'matplotlib', 'pandas', 'typst'} & sys.modules.keys())))"
    )
    before = os.times()
    done = in_fresh_process(["-c", code], tmp_path)
    assert done.stderr == "[]\n"
    # Time of the processor, which a busy machine does not stretch as it does time on the wall.
    after = os.times()
    assert after.children_user + after.children_system < (
        before.children_user + before.children_system + 1
    )
    assert done.stdout.startswith("usage: python -m gradflow.report")


def test_torch_is_never_loaded(tmp_path, in_fresh_process):
    folder = tmp_path / "mine"
    RunWriter(folder, {"network": "plain34", "seed": 1}).close("complete")
    code = LOADS_NO_TORCH.format(last="", folder=str(folder))
    done = in_fresh_process(["-c", code], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_that_check_sees_a_loaded_torch(tmp_path, in_fresh_process):
    folder = tmp_path / "mine"
    RunWriter(folder, {"network": "plain34", "seed": 1}).close("complete")
    (tmp_path / "stand_in").mkdir()
    (tmp_path / "stand_in" / "torch.py").write_text("")
    code = LOADS_NO_TORCH.format(last="import torch", folder=str(folder))
    done = in_fresh_process(["-c", code], tmp_path, tmp_path / "stand_in")
    assert done.returncode == 1
    assert "loaded ['torch']" in done.stderr
