"""A notebook that asks a run, executed by a real kernel."""

import os
from pathlib import Path

import pytest

CELLS = (
    "%matplotlib inline\nimport matplotlib, gradflow\nbefore = matplotlib.get_backend()",
    "gradflow.open_run({run!r})",
    "answers = gradflow.analyze({run!r}, only='health_check'); answers",
    "answers.figures['health_check/conditions']",
    "answers.findings[0]",
    "gradflow.report(answers, formats='md', out={out!r})",
    "assert matplotlib.get_backend() == before",
)
SHOWN = (
    "Run dead",
    "What dead answers",
    "Found: dead in dead",
    "can be called healthy",
    "report.md",
)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_results_show_themselves_and_the_notebook_stays_as_it_is(trained, tmp_path, monkeypatch):
    pytest.importorskip("ipykernel")
    nbclient = pytest.importorskip("nbclient")
    v4 = pytest.importorskip("nbformat").v4
    home = Path(__file__).resolve().parents[3]
    paths = [str(home), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    names = {"run": str(trained("dead")), "out": str(tmp_path)}
    cells = [v4.new_code_cell(one.format(**names)) for one in CELLS]
    nbclient.NotebookClient(v4.new_notebook(cells=cells), timeout=120).execute()
    shown = [
        output["data"]["text/html"]
        for cell in cells
        for output in cell.outputs
        if "text/html" in output.get("data", {})
    ]
    assert len(shown) == len(SHOWN)
    for words, content in zip(SHOWN, shown, strict=True):
        assert words in content
