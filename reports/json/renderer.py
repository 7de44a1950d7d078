"""Renders the findings as JSON, for other programs; `report.schema.json` is the schema."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analyses.registry import Outcome
from analyses.result import AnalysisResult, Estimate, Finding, Table
from gradflow.runs.reading.run import Experiment, Run
from reports.document.summary import section_command
from reports.elements import Destination, Document

# Increases if a program written for the older version could misread the newer one.
SCHEMA_VERSION = 1
SCHEMA_ID = f"urn:gradflow:report:{SCHEMA_VERSION}"


def render_json(experiment: Experiment, outcomes: Sequence[Outcome], document: Document) -> bytes:
    """The findings as JSON in UTF-8; values that are missing or not finite are null.

    Args:
        experiment, outcomes: the source of the numbers.
        document: made from both; the source of the title, the question and the answer.
    """
    created = document.created
    content = {
        "schema": SCHEMA_ID,
        "schema_version": SCHEMA_VERSION,
        "gradflow": document.version,
        "title": document.title,
        "question": document.question,
        "answer": [
            {"text": one.text, "hypothesis": one.hypothesis, "verdict": one.verdict.value}
            for one in document.answer
        ],
        "warnings": list(document.warnings),
        "experiment": {
            "folders": [one.folder.resolve().name for one in experiment.members or (experiment,)],
            "created": created.isoformat() if created else None,
            "networks": experiment.networks,
            "seeds": list(dict.fromkeys(r.seed for r in experiment.runs if r.seed is not None)),
            "runs": [_run(run) for run in experiment.runs],
            "destinations": [_destination(one) for one in document.destinations],
        },
        "sections": [_section(experiment, outcome) for outcome in outcomes],
    }
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1)
    return f"{text}\n".encode("utf-8", errors="replace")


def _run(run: Run) -> dict[str, Any]:
    versions = run.description.get("versions")
    return {
        "name": run.name,
        "network": run.network,
        "seed": run.seed,
        "status": _text(run.description.get("status")),
        "created": _text(run.description.get("created")),
        "device": _text(run.description.get("device")),
        "epochs": len(run.epochs),
        "versions": {
            str(name): str(version)
            for name, version in (versions if isinstance(versions, Mapping) else {}).items()
        },
    }


def _destination(destination: Destination) -> dict[str, Any]:
    return {
        "kind": destination.kind,
        "places": [
            {"run": one.run, "text": one.text, "link": one.link or None}
            for one in destination.places
        ],
        "further": destination.further,
        "note": destination.note,
        "commands": list(destination.commands),
    }


def _section(experiment: Experiment, outcome: Outcome) -> dict[str, Any]:
    result = outcome.result or AnalysisResult("", (), (), (), "", ())
    status = "failed" if outcome.failure else "not_applicable"
    return {
        "key": outcome.key,
        "title": outcome.title,
        "question": outcome.question,
        "status": "answered" if outcome.result else status,
        "reason": outcome.failure or outcome.not_applicable,
        "summary": result.summary,
        "findings": [_finding(finding) for finding in result.findings],
        "tables": [_table(table) for table in result.tables],
        "method": result.method,
        "sources": list(result.sources),
        "command": section_command(experiment, outcome.key),
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "key": finding.key,
        "topic": finding.topic,
        "network": finding.network,
        "hypothesis": finding.hypothesis,
        "contradicted_by": finding.contradicted_by,
        "verdict": finding.verdict.value,
        "estimates": [_estimate(estimate) for estimate in finding.estimates],
        "threshold": finding.threshold,
        "meaning": finding.meaning,
        "next_step": finding.next_step,
        "caveats": list(finding.caveats),
        "evidence": list(finding.evidence),
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {
        "name": estimate.name,
        "value": _value(estimate.value),
        "low": _value(estimate.low),
        "high": _value(estimate.high),
        "unit": estimate.unit,
        "level": _value(estimate.level),
        "method": estimate.method,
    }


def _table(table: Table) -> dict[str, Any]:
    columns = [
        [_value(cell) for cell in table.frame.iloc[:, place]]
        for place in range(table.frame.shape[1])
    ]
    return {
        "key": table.key,
        "title": table.title,
        "columns": [str(name) for name in table.frame.columns],
        "rows": [list(row) for row in zip(*columns, strict=True)],
    }


def _value(value: Any) -> Any:
    """`value` as a JSON number, truth value or text; None if it is missing or not finite."""
    if isinstance(value, list | tuple):
        return ", ".join(str(_value(item)) for item in value)
    if value is None or pd.isna(value):
        return None
    if pd.api.types.is_bool(value):
        return bool(value)
    if pd.api.types.is_integer(value):
        return int(value)
    if pd.api.types.is_float(value):
        return float(value) if math.isfinite(value) else None
    return str(value)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
