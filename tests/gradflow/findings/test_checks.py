"""`gradflow.check`: which trainings pass, which fail, and with what sentence."""

import pickle

import pytest

import gradflow
from analyses.health.conditions import CONDITIONS
from analyses.result import Verdict
from gradflow.errors import CheckFailedError, ConfigurationError, GradflowError


def test_healthy_training_passes(trained):
    checks = gradflow.check(trained("healthy"))
    assert [one.name for one in checks] == [key for key, one in CONDITIONS.items() if one.spoils]
    assert not any(one.failing for one in checks)
    asked = {one.name for one in checks if one.findings}
    assert {"non-finite", "inputs", "disconnected", "vanishing", "exploding", "stalled"} <= asked
    # Without a recurrent layer or a batch norm the network cannot have these; without a loss and
    # its terms it is not known.
    silent = {one.name for one in checks if one.silent}
    assert {"not-learning", "dominated", "conflicting", "overfitting"} <= silent
    assert silent.isdisjoint({"vanishing-in-time", "exploding-in-time", "stale-statistics"})


@pytest.mark.parametrize(("network", "condition"), [("vanishing", "vanishing"), ("dead", "dead")])
def test_training_with_a_condition_fails_with_its_sentence(network, condition, trained):
    with pytest.raises(gradflow.CheckFailedError) as caught:
        gradflow.check(trained(network), fail_on=(condition,))
    error = caught.value
    (finding,) = error.findings
    assert (finding.topic, finding.network) == (condition, network)
    assert finding.verdict is Verdict.SUPPORTED
    sentence = finding.meaning.replace("\N{NO-BREAK SPACE}", " ")
    assert str(error) == f"{condition}: {sentence}"
    assert isinstance(error, GradflowError)


def test_conditions_that_are_not_named_do_not_fail(trained):
    gradflow.check(trained("dead"), fail_on="vanishing,exploding")
    gradflow.check(trained("vanishing"), fail_on=["dead"])


def test_each_failing_network_has_its_sentence(trained):
    folders = [trained("dead"), trained("vanishing"), trained("healthy")]
    with pytest.raises(CheckFailedError) as caught:
        gradflow.check(folders, fail_on="dead, vanishing")
    assert {(one.topic, one.network) for one in caught.value.findings} >= {
        ("dead", "dead"),
        ("vanishing", "vanishing"),
    }
    assert "healthy" not in {one.network for one in caught.value.findings}
    assert len(caught.value.sentences) == len(caught.value.findings)


def test_condition_that_was_not_recorded_passes_unless_it_must_not(trained):
    folder = trained("healthy")
    (looked,) = gradflow.check(folder, fail_on="shattered")
    assert (looked.findings, looked.silent) == ((), ("healthy",))
    with pytest.raises(CheckFailedError, match="shattered: healthy did not record"):
        gradflow.check(folder, fail_on="shattered", fail_on_unknown=True)


def test_run_that_recorded_nothing_passes_unless_it_must_not(tmp_path):
    from gradflow.runs.writing.run import RunWriter  # noqa: PLC0415

    RunWriter(tmp_path / "empty", {"network": "plain"}).close("complete")
    assert all(one.silent == ("plain",) for one in gradflow.check(tmp_path / "empty"))
    with pytest.raises(CheckFailedError, match="dead: plain did not record"):
        gradflow.check(tmp_path / "empty", fail_on_unknown=True)


def test_what_cannot_be_told_passes_unless_it_must_not(tmp_path, trained, monkeypatch):
    import analyses.health.question as health  # noqa: PLC0415

    all_findings = health.all_findings

    def untold(experiment):
        from dataclasses import replace  # noqa: PLC0415

        found = all_findings(experiment)
        return tuple(replace(one, verdict=Verdict.INCONCLUSIVE, meaning="?!") for one in found)

    monkeypatch.setattr(health, "all_findings", untold)
    folder = trained("vanishing")
    (looked,) = gradflow.check(folder, fail_on="vanishing")
    assert looked.open == ("?!",)
    with pytest.raises(CheckFailedError, match=r"vanishing: \?!"):
        gradflow.check(folder, fail_on="vanishing", fail_on_unknown=True)
    with pytest.raises(CheckFailedError, match=r"vanishing: \?!"):
        gradflow.check(folder, fail_on="vanishing=inconclusive")


def test_other_findings_fail_on_the_verdict_that_is_named(trained):
    gradflow.check(trained("healthy"), fail_on="healthy=contradicted")
    with pytest.raises(CheckFailedError, match="healthy: In dead "):
        gradflow.check(trained("dead"), fail_on="healthy=contradicted")
    with pytest.raises(CheckFailedError, match="vanish-vanishing: In vanishing "):
        gradflow.check(trained("vanishing"), fail_on=["vanish-vanishing=supported"])


def test_answers_can_be_checked_without_asking_again(trained, monkeypatch):
    answers = gradflow.analyze(trained("dead"), only="health_check")
    monkeypatch.setattr("analyses.registry.run_all", None)
    with pytest.raises(CheckFailedError, match="healthy: In dead "):
        gradflow.check(answers, fail_on="healthy=contradicted")


@pytest.mark.parametrize(
    ("fail_on", "said"),
    [
        ("vanishin", "there is no condition 'vanishin': choose from non-finite, inputs, "),
        ("healthy", "there is no condition 'healthy'.*healthy=contradicted"),
        ("dead=yes", "the verdict 'yes' of 'dead' is unknown: choose from supported, "),
        ("", "no condition is named: choose from non-finite"),
        ((), "no condition is named"),
        ("helthy=contradicted", "no finding 'helthy' here: choose from non-finite.* healthy"),
    ],
)
def test_unknown_names_are_one_sentence_with_the_known_ones(fail_on, said, trained):
    with pytest.raises(ConfigurationError, match=said):
        gradflow.check(trained("healthy"), fail_on=fail_on)


def test_error_can_be_sent_to_another_process(trained):
    with pytest.raises(CheckFailedError) as caught:
        gradflow.check(trained("dead"), fail_on="dead")
    sent = pickle.loads(pickle.dumps(caught.value))
    assert (str(sent), sent.findings) == (str(caught.value), caught.value.findings)
