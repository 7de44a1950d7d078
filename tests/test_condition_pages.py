"""Each condition has a page, and its small trainings still show what the page says."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch

from analyses.health.conditions import CONDITIONS
from analyses.health.question import all_findings
from analyses.result import Verdict
from gradflow.runs.reading.run import open_experiment

HERE = Path(__file__).parents[1] / "docs" / "conditions"


@pytest.mark.parametrize("key", CONDITIONS)
def test_each_condition_has_a_page_that_the_table_names(key):
    page = (HERE / f"{key}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# `{key}`")
    assert f"({key}.md)" in (HERE / "README.md").read_text(encoding="utf-8")
    assert (HERE / "pictures" / f"{key}.png").exists()
    assert re.search(rf"> `{key}`: \*\*yes\*\*", page)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:gradflow")  # some of what is ill is told while it trains
@pytest.mark.parametrize("key", sorted(CONDITIONS))
def test_the_training_of_a_page_has_the_condition_and_its_mend_has_not(key, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    for name in ("small_training", f"trainings.{key.replace('-', '_')}"):
        sys.modules.pop(name, None)
    module = importlib.import_module(f"trainings.{key.replace('-', '_')}")
    verdicts = {}
    for which in ("ill", "mended"):
        torch.manual_seed(0)
        getattr(module, which)(tmp_path / which)
        found = {one.topic: one for one in all_findings(open_experiment(tmp_path / which))}
        verdicts[which] = found[key].verdict if key in found else None
    assert verdicts["ill"] is Verdict.SUPPORTED
    assert verdicts["mended"] in (Verdict.CONTRADICTED, None)
