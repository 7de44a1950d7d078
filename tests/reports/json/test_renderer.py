"""The JSON has every number of the findings, never NaN, and matches its schema."""

import json
import math
import re
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from jsonschema import Draft202012Validator, ValidationError

import reports
from analyses.registry import Outcome
from analyses.result import AnalysisResult, Estimate, Table
from gradflow.runs.reading.run import open_experiment
from gradflow.runs.writing.run import RunWriter
from reports.document.builder import build_document
from reports.json.renderer import SCHEMA_ID, SCHEMA_VERSION, render_json

SCHEMA = json.loads(
    (Path(reports.__file__).parent / "json" / "report.schema.json").read_text(encoding="utf-8")
)
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "report-json.md"


def refuse(word):
    raise AssertionError(f"{word} is no JSON")


def written(experiment, outcomes):
    """The JSON report, read by a strict parser."""
    content = render_json(experiment, outcomes, build_document(experiment, outcomes))
    return json.loads(content.decode("utf-8"), parse_constant=refuse)


@pytest.fixture(scope="module")
def read(experiment, outcomes):
    return written(experiment, outcomes)


def check(content):
    Draft202012Validator(SCHEMA).validate(content)


def test_schema_is_one_and_describes_every_property():
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$id"] == SCHEMA_ID == f"urn:gradflow:report:{SCHEMA_VERSION}"

    def undescribed(part, path):
        if isinstance(part, dict):
            for name, inner in part.get("properties", {}).items():
                if not inner.get("description"):
                    yield f"{path}.{name}"
            if part.get("type") == "object" and "properties" in part:
                assert part["additionalProperties"] is False
                assert set(part["required"]) == set(part["properties"])
            for name, inner in part.items():
                yield from undescribed(inner, f"{path}.{name}")

    assert list(undescribed(SCHEMA, "")) == []


def test_hostile_failed_and_inapplicable_outcomes_match_the_schema(read):
    check(read)
    statuses = {section["key"]: section["status"] for section in read["sections"]}
    assert statuses["skip_carry"] == "not_applicable"
    assert statuses["third_party"] == "failed"
    assert statuses["gradient_profile"] == "answered"
    (reason,) = [one["reason"] for one in read["sections"] if one["key"] == "third_party"]
    assert reason == "ValueError: it broke"


def test_the_check_can_fail(read):
    for wrong in (
        read | {"more": 1},
        read | {"schema_version": 2},
        read | {"sections": [{**read["sections"][0], "status": "fine"}]},
    ):
        with pytest.raises(ValidationError):
            check(wrong)


def test_every_finding_is_there_with_its_numbers(read, outcomes):
    for section, outcome in zip(read["sections"], outcomes, strict=True):
        findings = outcome.result.findings if outcome.result else ()
        assert [one["key"] for one in section["findings"]] == [one.key for one in findings]
        for one, finding in zip(section["findings"], findings, strict=True):
            assert one["verdict"] == finding.verdict.value
            assert one["network"] == finding.network
            numbers = [(e["value"], e["low"], e["high"]) for e in one["estimates"]]
            assert numbers == [(e.value, e.low, e.high) for e in finding.estimates]


def test_tables_keep_all_finite_numbers(experiment):
    frame = pd.DataFrame(
        {
            "float": [0.1 + 0.2, math.nan, math.inf],
            "whole": np.array([1, 2**53 + 1, -1], dtype=np.int64),
            "said": ["a", None, "c"],
            "so": [True, False, True],
            "small": np.array([1.5, -math.inf, 0], dtype=np.float32),
            "listed": [[1, 2], [], None],
        }
    )
    frame = pd.concat([frame, frame[["so"]]], axis=1)  # two columns of one name
    estimate = Estimate("ratio", math.nan, -math.inf, math.inf)
    result = AnalysisResult("", (), (), (Table("t", "T", frame),), "", ())
    outcome = Outcome("one", "One", "Is it?", result)
    content = written(experiment, (outcome,))
    check(content)
    (table,) = content["sections"][0]["tables"]
    assert table["columns"] == ["float", "whole", "said", "so", "small", "listed", "so"]
    assert table["rows"] == [
        [0.1 + 0.2, 1, "a", True, 1.5, "1, 2", True],
        [None, 2**53 + 1, None, False, None, "", False],
        [None, -1, "c", True, 0.0, None, True],
    ]
    assert estimate.value is not None  # an analysis may return such an estimate


def test_numbers_of_an_estimate_that_are_not_finite_are_null(experiment, outcomes):
    finding = replace(
        outcomes[0].result.findings[0], estimates=(Estimate("r", math.nan, -math.inf, math.inf),)
    )
    result = replace(outcomes[0].result, findings=(finding,))
    content = written(experiment, (replace(outcomes[0], result=result),))
    (estimate,) = content["sections"][0]["findings"][0]["estimates"]
    assert (estimate["value"], estimate["low"], estimate["high"]) == (None, None, None)


def test_runs_are_described_without_paths(read, experiment):
    assert [run["name"] for run in read["experiment"]["runs"]] == [
        "plain34-seed1",
        "resnet34-seed1",
    ]
    assert read["experiment"]["seeds"] == [1]
    assert read["experiment"]["runs"][0]["status"] == "complete"
    assert read["experiment"]["folders"] == ["trial"]
    assert str(experiment.folder.parent) not in json.dumps(read)


def test_a_run_without_a_description_matches_the_schema(tmp_path, outcomes):
    RunWriter(tmp_path / "mine", {"versions": "none", "device": 7}).close("complete")
    check(written(open_experiment(tmp_path / "mine"), outcomes))


def test_the_same_outcomes_give_the_same_bytes(experiment, outcomes):
    document = build_document(experiment, outcomes)
    first, second = (render_json(experiment, outcomes, document) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(("verdict", "code"), [("supported", 1), ("contradicted", 0)])
def test_the_script_in_the_manual_does_what_it_says(read, tmp_path, monkeypatch, verdict, code):
    (script,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    section = next(one for one in read["sections"] if one["key"] == "gradient_profile")
    finding = {**section["findings"][0], "verdict": verdict}
    (tmp_path / "report.json").write_text(
        json.dumps(read | {"sections": [{**section, "findings": [finding]}]}), encoding="utf-8"
    )
    (tmp_path / "check_findings.py").write_text(script, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["check_findings.py", str(tmp_path / "report.json")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(tmp_path / "check_findings.py"), run_name="__main__")
    assert ended.value.code == (finding["meaning"] if code else 0)
