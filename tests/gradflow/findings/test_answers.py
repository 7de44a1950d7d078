"""`gradflow.analyze`: findings as objects and as a frame, from whatever names a run."""

import pandas as pd
import pytest

import gradflow
from analyses.registry import Analysis, run_all
from analyses.result import AnalysisResult
from gradflow.errors import ConfigurationError, RunError


def test_answers_are_those_of_a_report(trained):
    folder = trained("vanishing")
    answers = gradflow.analyze(folder)
    expected = run_all(gradflow.open_experiment(folder))
    assert [one.key for one in answers] == [one.key for one in expected]
    found = [
        one.meaning for outcome in expected if outcome.result for one in outcome.result.findings
    ]
    assert found
    assert [one.meaning for one in answers.findings] == found


def test_frame_has_a_row_a_finding_with_the_number_of_its_verdict(trained):
    answers = gradflow.analyze(trained("vanishing"), only="gradient_profile")
    frame = answers.frame.set_index("finding")
    finding = answers.finding("vanish-vanishing")
    row = frame.loc["vanish-vanishing"]
    assert list(frame.index) == [one.key for one in answers.findings]
    assert (row["analysis"], row["topic"]) == ("gradient_profile", "vanish")
    assert (row["network"], row["verdict"]) == ("vanishing", "supported")
    assert row["value"] == finding.estimates[0].value < 1e-3
    assert row["low"] <= row["value"] <= row["high"]
    assert row["meaning"] == finding.meaning


def test_frame_without_findings_has_its_columns(trained):
    frame = gradflow.analyze(trained("healthy"), only="magnitudes").frame
    assert frame.empty
    assert {"finding", "verdict", "value"} <= set(frame.columns)


def test_same_run_by_path_text_run_and_experiment(trained):
    folder = trained("healthy")
    sources = (folder, str(folder), gradflow.open_run(folder), gradflow.open_experiment(folder))
    frames = [gradflow.analyze(one, only="health_check").frame for one in sources]
    assert len(frames[0])
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frame, frames[0])


def test_run_is_found_by_its_name_in_the_folder_runs(trained, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(trained("healthy"))
    monkeypatch.chdir(tmp_path)
    assert gradflow.analyze("mine", only="health_check").findings


def test_an_analysis_of_ones_own_is_asked_and_reported(trained, tmp_path):
    result = AnalysisResult("It has 4 layers.", (), (), (), "Counted.", ())
    own = Analysis("counted", "Layers", "How many layers has it?", lambda experiment: result)
    answers = gradflow.analyze(trained("healthy"), only="counted", also=[own])
    assert [one.key for one in answers] == ["counted"]
    written = gradflow.report(answers, formats="md", out=tmp_path).files["md"]
    assert "It has 4 layers." in written.read_text()


def test_several_sources_are_compared(trained):
    answers = gradflow.analyze([trained("healthy"), trained("dead")], only=["health_check"])
    assert set(answers.frame["network"]) == {"healthy", "dead"}


def test_only_runs_what_it_names(trained):
    answers = gradflow.analyze(trained("healthy"), only="health_check, gradient_profile")
    assert {one.key for one in answers} == {"health_check", "gradient_profile"}
    assert answers["health_check"].result is not None


def test_figures_and_tables_are_found_by_analysis_and_key(trained):
    answers = gradflow.analyze(trained("healthy"), only="health_check")
    assert list(answers.figures) == ["health_check/conditions"]
    table = answers.tables["health_check/conditions"].frame
    assert "vanishing" in set(table["condition"])


@pytest.mark.parametrize(
    ("ask", "error", "said"),
    [
        (
            lambda run: gradflow.analyze(run, only="helth"),
            ConfigurationError,
            "no analysis 'helth'",
        ),
        (lambda run: gradflow.analyze(run / "none"), RunError, "there is no folder"),
        (lambda run: gradflow.analyze(3), ConfigurationError, "not a int"),
        (lambda run: gradflow.analyze([]), ConfigurationError, "no run was given"),
        (lambda run: gradflow.analyze([run, run]), ConfigurationError, "twice"),
        (
            lambda run: gradflow.analyze(run, only="health_check")["overview"],
            ConfigurationError,
            "no analysis 'overview': choose from health_check",
        ),
        (
            lambda run: gradflow.analyze(run, only="health_check").finding("dead"),
            ConfigurationError,
            "no finding 'dead': choose from healthy-healthy",
        ),
    ],
)
def test_what_cannot_be_asked_is_said_in_a_sentence(ask, error, said, trained):
    with pytest.raises(error, match=said):
        ask(trained("healthy"))


def test_repr_is_short(trained):
    answers = gradflow.analyze(trained("healthy"), only="health_check")
    assert repr(answers).startswith("Answers('healthy', 1 analyses, ")
    assert all(len(repr(one)) < 400 for one in (*answers, *answers.findings))
