"""The two commands of the README, one after the other, on the networks and images they default to.

Slow: minutes on two cores. Run with `python -m pytest -m slow`.
"""

import pytest
from pypdf import PdfReader

from gradflow import report, train_and_trace


@pytest.mark.slow
def test_digits_are_trained_traced_and_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train_and_trace.main(["--epochs", "3"]) == 0
    assert report.main([]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    page = (folder / "report.html").read_text(encoding="utf-8")
    text = "".join(page.extract_text() for page in PdfReader(folder / "report.pdf").pages)
    assert "The gradients vanish toward the input" in page
    assert "The gradients vanish toward the input" in text
    for network in ("plain34", "resnet34"):
        assert network in page
        assert network in text
    assert str(folder.name) in capsys.readouterr().out
