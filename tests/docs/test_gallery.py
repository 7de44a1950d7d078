"""The gallery's scripts: each asks a question, and draws what its sentence says."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "docs" / "examples_gallery").glob("plot_*.py"))

# A script whose sentence is untrue of what it draws fails by its own assertion.
RUN = """
import runpy, sys, warnings
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
warnings.simplefilter("error")
for path in sys.argv[1:]:
    plt.close("all")
    try:
        runpy.run_path(path)
    except Exception as error:
        raise SystemExit(f"{path}: {error!r}")
    [axes, *_] = plt.gcf().axes
    if not (axes.get_xlabel() and axes.get_ylabel()):
        raise SystemExit(f"{path}: an axis has no name")
"""


def test_there_are_scripts():
    assert len(SCRIPTS) > 10


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script_asks_a_question_and_checks_its_claim(path):
    source = path.read_text()
    tree = ast.parse(source)
    compile(source, str(path), "exec")
    title, rule, blank, *text = (ast.get_docstring(tree) or "").splitlines()
    assert title.endswith("?")
    assert rule == "=" * len(title)
    assert not blank
    assert text
    assert any(isinstance(node, ast.Assert) for node in ast.walk(tree))


@pytest.mark.slow
def test_scripts_run_without_warnings_and_draw_what_they_claim():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, SCRIPTS)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
