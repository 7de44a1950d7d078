"""The example of a loss with two terms does what it says."""

import runpy
from pathlib import Path

import pytest

import gradflow

EXAMPLE = Path(__file__).parents[2] / "examples" / "terms_of_a_loss.py"


@pytest.mark.slow
def test_the_example_finds_the_term_that_is_drowned(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    printed = capsys.readouterr().out
    assert "one term of the loss drowns another: the gradient of equation is" in printed
    assert "times that of boundary" in printed
    run = gradflow.open_run(tmp_path / "runs" / "terms-of-a-loss")
    assert run.table("terms")["step"].nunique() == 24
    assert run.table("terms")["sum_error"].max() < 1e-4
    assert "not_recorded" not in run.description
