"""The example that compares two runs does what it says."""

import runpy
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "compare_two_runs.py"


def test_the_example_names_what_changed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    printed = capsys.readouterr().out
    assert "relu differs from sigmoid" in printed
    assert "relu-faster differs from relu" in printed
    assert printed.index("Options that differ") < printed.index("Largest ratios")
    assert "lr 0.001        0.01" in printed
    assert (tmp_path / "runs" / "compare-two-runs" / "sigmoid" / "run.json").exists()
