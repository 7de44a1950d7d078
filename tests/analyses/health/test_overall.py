"""Healthy is what was asked for every condition that applies, and has none; the rest is said."""

import pytest

from analyses.health.condition import NotAsked
from analyses.health.conditions import CONDITIONS
from analyses.health.overall import Unasked, overall_finding
from analyses.result import Finding, Verdict

HAS_IT, HAS_NOT, OPEN = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.INCONCLUSIVE
HEALTHY, ILL = HAS_IT, HAS_NOT  # the hypothesis of the whole is that it is healthy


def finding(key, verdict=HAS_NOT):
    return Finding(f"{key}-net", "net", "", "", verdict, (), "", "", f"Mend {key}.")


def overall(unasked=(), layers=None, **verdicts):
    missing = {one.condition for one in unasked}
    found = {
        key: finding(key, verdicts.get(key.replace("-", "_"), HAS_NOT))
        for key in CONDITIONS
        if key not in missing
    }
    return overall_finding("net", found, Unasked(tuple(unasked), layers or {}))


def test_healthy_if_each_condition_was_asked_and_none_found():
    one = overall()
    assert one.verdict is HEALTHY
    assert one.caveats[0] == "Every condition was asked."


def test_a_condition_that_applies_and_was_not_asked_leaves_it_open():
    one = overall([NotAsked("dead", "no activations were recorded")])
    assert one.verdict is OPEN
    assert "but not asked was dead (no activations were recorded)" in one.meaning
    assert one.caveats[0] == "Not asked: dead, for no activations were recorded."


def test_what_does_not_apply_stands_beside_it():
    one = overall([NotAsked("saturated", "no layer is a tanh or sigmoid", applies=False)])
    assert one.verdict is HEALTHY
    assert one.caveats[0] == "Not asked: saturated, for no layer is a tanh or sigmoid."


@pytest.mark.parametrize(("key", "told"), [("not-learning", True), ("shattered", False)])
def test_what_one_has_to_ask_for_stands_beside_it(key, told):
    one = overall([NotAsked(key, "it was not logged")])
    assert one.verdict is HEALTHY
    assert (f"; not asked: {key} (it was not logged)" in one.meaning) == told
    assert one.caveats[0] == f"Not asked: {key}, for it was not logged."


def test_conditions_that_lack_the_same_are_told_together():
    reason = "fewer than two layers with weights are trained"
    one = overall([NotAsked(key, reason, applies=False) for key in ("vanishing", "exploding")])
    assert one.caveats[0] == f"Not asked: vanishing and exploding, for {reason}."


def test_a_layer_of_which_nothing_was_recorded_leaves_it_open():
    one = overall(layers={"a": "ran in a second thread"})
    assert one.verdict is OPEN
    assert one.meaning.endswith("was found, but nothing was recorded of layer a.")
    assert one.caveats[1] == "Of some layers nothing was recorded: a ran in a second thread."


def test_one_condition_that_was_found_is_enough():
    one = overall([NotAsked("stalled", "no")], {"a": "ran in a second thread"}, dead=HAS_IT)
    assert one.verdict is ILL
    assert one.next_step == "Mend dead."


def test_one_that_cannot_be_told_leaves_it_open():
    assert overall(dead=OPEN).verdict is OPEN
    assert overall(noisy=HAS_IT).verdict is HEALTHY  # harmless
