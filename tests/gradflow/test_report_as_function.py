"""`gradflow.report` is a command, a module and a function, in whatever order it is met."""

import pytest

from gradflow.runs.writing.run import RunWriter

CALL = "made = gradflow.report('mine', formats='md'); print(sorted(made.files))"
WAYS = {
    "before its import": f"import gradflow; {CALL}",
    "after its import": f"import gradflow, gradflow.report; {CALL}",
    "after an import of a name": f"import gradflow\nfrom gradflow.report import main; {CALL}",
    "by from": f"import gradflow\nfrom gradflow import report; assert callable(report); {CALL}",
    "after a command": (
        f"import gradflow; code = gradflow.report.main(['mine', '--format', 'json']); {CALL}"
    ),
    "as an attribute of sys.modules": (
        "import sys, gradflow; gradflow.report; "
        f"assert sys.modules['gradflow.report'] is gradflow.report; {CALL}"
    ),
    "after a reload": (f"import gradflow, importlib; importlib.reload(gradflow.report); {CALL}"),
    "by the module as": "import gradflow.report as r; print(sorted(r('mine', formats='md').files))",
}


@pytest.fixture
def folder(tmp_path):
    RunWriter(tmp_path / "mine", {"network": "plain34", "seed": 1}).close("complete")
    return tmp_path


@pytest.mark.parametrize("way", WAYS)
def test_report_can_be_called(way, folder, in_fresh_process):
    done = in_fresh_process(["-c", WAYS[way]], folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("['md']\n")
    assert (folder / "mine" / "report.md").exists()


def test_command_keeps_working(folder, in_fresh_process):
    done = in_fresh_process(["-m", "gradflow.report", "mine", "--format", "md"], folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "mine" / "report.md").exists()


def test_import_alone_loads_neither_torch_nor_what_draws(folder, in_fresh_process):
    """Neither does looking at a run; a card of a run needs no matplotlib."""
    code = (
        "import sys, gradflow\n"
        "assert not {'pandas', 'tyro', 'analyses'} & sys.modules.keys()\n"
        "gradflow.analyze, gradflow.check, gradflow.report, gradflow.CheckFailedError\n"
        "run = gradflow.open_run('mine'); repr(run); run._repr_html_()\n"
        "gradflow.open_experiment('mine')._repr_html_()\n"
        "sys.exit(repr(sorted({'torch', 'matplotlib', 'analyses'} & sys.modules.keys())))"
    )
    assert in_fresh_process(["-c", code], folder).stderr == "[]\n"


def test_checks_never_load_torch(folder, in_fresh_process):
    code = (
        "import sys, gradflow\ngradflow.check('mine')\n"
        "sys.exit(repr(sorted({'torch', 'torchvision'} & sys.modules.keys())))"
    )
    assert in_fresh_process(["-c", code], folder).stderr == "[]\n"
