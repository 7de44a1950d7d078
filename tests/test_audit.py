"""What is made of pip-audit's answers: one that looked up nothing is no clean bill."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

SOURCE = Path(__file__).parent.parent / ".ci" / "audit.py"
SPEC = importlib.util.spec_from_file_location("audit", SOURCE)
audit = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(audit)

# In pip-audit's own form, as `pip-audit --format json` prints it.
CLEAN = {"name": "numpy", "version": "2.4.6", "vulns": []}
SKIPPED = {"name": "pandas", "skip_reason": "Dependency not found on PyPI and could not be audited"}
EDITABLE = {"name": "gradflow-toolkit", "skip_reason": "distribution marked as editable"}
HURT = {
    "name": "torch",
    "version": "2.6.0",
    "vulns": [{"id": "GHSA-63cw-57p8-fm3p", "fix_versions": ["2.10.0"], "aliases": []}],
}


def answering(monkeypatch, **by_service):
    """Let each service answer with dependencies, or fail where it is given none."""
    monkeypatch.setattr(
        audit,
        "ask",
        lambda service: (
            {"dependencies": by_service[service], "fixes": []} if by_service[service] else None
        ),
    )


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        ([CLEAN, EDITABLE], None, 0),
        ([CLEAN, SKIPPED], [CLEAN, CLEAN], 0),
        ([CLEAN, SKIPPED], None, 3),
        ([SKIPPED, SKIPPED], None, 3),
        ([EDITABLE], None, 3),
        (None, None, 3),
        ([CLEAN, HURT], None, 1),
        ([SKIPPED, HURT], [CLEAN, CLEAN], 1),
        (None, [HURT], 1),
    ],
)
def test_only_a_whole_answer_is_a_clean_bill(monkeypatch, first, second, code):
    answering(monkeypatch, pypi=first, osv=second)
    assert audit.audit() == code


def test_a_vulnerability_is_named_with_the_version_that_mends_it(monkeypatch, capsys):
    answering(monkeypatch, pypi=[CLEAN, HURT], osv=None)
    audit.audit()
    printed = capsys.readouterr().out
    assert "torch 2.6.0: GHSA-63cw-57p8-fm3p, mended in 2.10.0" in printed
    assert "2 of 2 distributions were looked up" in printed


def test_it_says_so_where_it_could_look_up_nothing(monkeypatch, capsys):
    answering(monkeypatch, pypi=[SKIPPED], osv=None)
    audit.audit()
    printed = capsys.readouterr().out
    assert "not found there: pandas" in printed
    assert "NOT AUDITED" in printed


def test_a_failing_pip_audit_is_told_by_its_last_line(monkeypatch, capsys):
    failed = SimpleNamespace(stdout="", stderr="Traceback\nConnectionError: no route")
    monkeypatch.setattr(audit.subprocess, "run", lambda *_, **__: failed)
    assert audit.audit() == 3
    assert "could not ask pypi: ConnectionError: no route" in capsys.readouterr().out
