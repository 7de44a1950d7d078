"""All analyses run; one that fails costs the reader nothing but itself."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from analyses import registry
from analyses.registry import Analysis, NotApplicableError, built_in, run_all, run_one
from gradflow.errors import ConfigurationError, RunError


@dataclass
class Entry:
    name: str
    loaded: Any
    value: str = "somewhere:ANALYSIS"

    def load(self) -> Any:
        if isinstance(self.loaded, Exception):
            raise self.loaded
        return self.loaded


def raising(error: Exception) -> Analysis:
    def run(experiment):
        raise error

    return Analysis("theirs", "Theirs", "Is it so?", run)


@pytest.fixture
def experiment(build):
    return build.experiment(build.plan())


def third_party(monkeypatch, *entries):
    monkeypatch.setattr(registry, "entry_points", lambda group: list(entries))


def test_every_analysis_in_the_tree_is_found():
    home = Path(registry.__file__).parent
    defining = [one for one in home.rglob("*.py") if "\nANALYSIS = " in one.read_text()]
    assert len(built_in()) == len(defining) > 15


def test_keys_and_places_are_unique():
    for values in ([one.key for one in built_in()], [one.order for one in built_in()]):
        assert len(set(values)) == len(values)


def test_every_analysis_with_a_section_has_its_background_in_one_sentence():
    # The overview is the opening picture and has no section.
    texts = {one.key: one.background for one in built_in() if one.key != "overview"}
    assert [key for key, text in texts.items() if not text] == []
    assert [key for key, text in texts.items() if text[-1] != "." or ". " in text] == []


def test_built_in_analyses_run_in_reading_order_without_those_that_compare(experiment):
    outcomes = run_all(experiment)
    asked = [one for one in built_in() if not one.comparing]
    assert [outcome.key for outcome in outcomes] == [one.key for one in asked]
    assert asked == sorted(asked, key=lambda one: one.order)
    assert len(asked) < len(built_in())
    assert all(outcome.question.endswith("?") for outcome in outcomes)
    assert not [outcome.failure for outcome in outcomes if outcome.failure]


def test_a_failing_third_party_analysis_becomes_an_outcome(monkeypatch, experiment):
    third_party(monkeypatch, Entry("b", raising(ValueError("no such column"))))
    outcome = run_all(experiment)[-1]
    assert (outcome.key, outcome.result) == ("theirs", None)
    assert outcome.failure == "ValueError: no such column"


def test_an_entry_that_cannot_be_loaded_or_is_no_analysis_is_reported(monkeypatch, experiment):
    third_party(monkeypatch, Entry("b", ImportError("no module")), Entry("a", 7))
    first, second = run_all(experiment)[-2:]
    assert (first.key, second.key) == ("a", "b")
    assert "is a int, not an Analysis" in first.failure
    assert second.failure == "ImportError: no module"


def test_an_error_in_the_run_itself_passes_through(experiment):
    with pytest.raises(RunError, match="damaged"):
        run_one(raising(RunError("the part is damaged")), experiment)


def test_what_does_not_apply_is_no_failure(experiment):
    outcome = run_one(raising(NotApplicableError("no gradients")), experiment)
    assert (outcome.not_applicable, outcome.failure) == ("no gradients", "")


def test_only_the_analyses_asked_for_run(monkeypatch, experiment):
    third_party(monkeypatch, Entry("b", raising(ValueError("no such column"))))
    keys = [outcome.key for outcome in run_all(experiment, ["theirs", "skip_carry"])]
    assert keys == ["skip_carry", "theirs"]


def test_an_unknown_analysis_is_refused_before_any_runs(monkeypatch, experiment):
    third_party(monkeypatch, Entry("b", raising(ValueError("never run"))))
    with pytest.raises(ConfigurationError, match=r"no analysis 'skips': choose from .*, theirs$"):
        run_all(experiment, ["skips"])


def test_analyses_that_are_not_registered_come_last_and_answer_to_their_key(experiment):
    theirs = raising(ValueError("no such column"))
    keys = [outcome.key for outcome in run_all(experiment, ["theirs", "skip_carry"], also=[theirs])]
    assert keys == ["skip_carry", "theirs"]
    assert [one.key for one in run_all(experiment, ["skip_carry"], also=[theirs])] == ["skip_carry"]


def test_one_that_is_no_analysis_or_has_the_key_of_another_is_refused(monkeypatch, experiment):
    theirs = raising(ValueError("never run"))
    for wrong in ("health_check", theirs.run):
        with pytest.raises(ConfigurationError, match=r"also= takes analyses, not (str|function)"):
            run_all(experiment, also=[wrong])
    for twice in ([theirs, theirs], [built_in()[0]], [replace(theirs, key="what_changed")]):
        with pytest.raises(ConfigurationError, match=r"there is an analysis '.*' already"):
            run_all(experiment, also=twice)
    third_party(monkeypatch, Entry("b", theirs))
    with pytest.raises(ConfigurationError, match="there is an analysis 'theirs' already"):
        run_all(experiment, also=[theirs])
