"""What is loaded by what: the laptop side, that explains and shows, must never load torch."""

import subprocess
import sys

import pytest

LIGHT = (
    "gradflow",
    "gradflow.runs.reading.run",
    "gradflow.runs.writing.run",
    "gradflow.runs.__main__",
    "analyses.registry",
    "reports.document.builder",
    "gradflow.report",
    "gradflow.live.watch",
)


def loads_torch(code: str) -> bool:
    program = f"{code}\nimport sys\nprint('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return result.stdout.strip() == "True"


@pytest.mark.parametrize("module", LIGHT)
def test_torch_is_not_loaded_by(module):
    assert not loads_torch(f"import {module}")


def test_no_analysis_loads_torch():
    assert not loads_torch("from analyses.registry import built_in\nbuilt_in()")


def test_the_check_can_fail():
    assert loads_torch("import gradflow\ngradflow.Tracer")
