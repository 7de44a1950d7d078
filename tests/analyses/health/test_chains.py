"""Conditions that follow from one another are one chain, in the order in which they began."""

from dataclasses import replace

import pandas as pd
import pytest

from analyses.health.chains import chains_of, link_clause
from analyses.health.conditions import CONDITIONS
from analyses.health.findings import network_chains
from analyses.health.readings import Reading
from analyses.result import Verdict


class Recorded:
    """A run of 60 recorded steps."""

    steps = pd.DataFrame({"step": range(60)})


def ill(condition, since=None, layer=""):
    return Reading(
        condition=condition,
        verdict=Verdict.SUPPORTED,
        quantity="number",
        layer=layer,
        value=1.0,
        low=None,
        high=None,
        early_value=None,
        held_early=False,
        threshold=0.0,
        rule="above 0",
        method="",
        since=since,
    )


def chains(*found):
    return [[one.condition for one in chain.links] for chain in chains_of(Recorded(), found)]


def test_what_follows_comes_after_what_it_follows_from():
    found = [ill("vanishing", 14), ill("dead", 14), ill("stalled", 15), ill("not-learning", 30)]
    assert chains(*found) == [["dead", "vanishing", "stalled", "not-learning"]]
    assert chains(*reversed(found)) == [["dead", "vanishing", "stalled", "not-learning"]]


def test_nothing_is_an_effect_of_what_began_later():
    assert chains(ill("dead", 20), ill("vanishing", 10)) == []
    assert chains(ill("dead", 20), ill("vanishing", 10), ill("stalled", 15)) == [
        ["vanishing", "stalled"]
    ]


def test_what_the_recording_does_not_time_is_judged_by_what_leads_to_what():
    assert chains(ill("shattered"), ill("not-learning", 0)) == [["shattered", "not-learning"]]


@pytest.mark.parametrize(("since", "is_effect"), [(19, True), (20, False)])
def test_a_flat_loss_is_an_effect_of_what_began_within_the_first_steps(since, is_effect):
    """A third of 60 steps: a loss that stays where it begins cannot be seen to be flat earlier."""
    assert bool(chains(ill("dead", since), ill("not-learning", 0))) == is_effect
    assert not chains(ill("dead", since), ill("vanishing", 0))


def test_conditions_without_a_common_cause_are_told_apart():
    found = [ill("clipped", 0), ill("dead", 5), ill("vanishing", 5), ill("stalled", 0)]
    assert chains(*found) == [["clipped", "stalled"], ["dead", "vanishing"]]


def test_a_condition_alone_is_no_chain():
    assert chains(ill("dead", 3)) == []
    assert chains(ill("unused", 0), ill("not-learning", 0)) == []


def test_a_chain_tells_place_and_time_of_each_link():
    (chain,) = chains_of(Recorded(), [ill("vanishing", 15), ill("dead", 14, "3")])
    assert chain.clause == (
        "first some layer has mostly dead channels (layer 3, from step 14 on), then the gradients "
        "vanish toward the input (from step 15 on)"
    )
    assert link_clause(ill("disconnected", layer="a to b")).endswith("parameters (layers a to b)")
    assert link_clause(ill("stalled")) == "training is stalled"
    own = replace(ill("dead", 14, "3"), link="64 of 64 channels of layer 3 are dead")
    assert link_clause(own) == "64 of 64 channels of layer 3 are dead (from step 14 on)"


def test_of_several_runs_that_one_is_told_which_has_most():
    runs = [Recorded(), Recorded(), Recorded()]
    well = [replace(ill(key), verdict=Verdict.CONTRADICTED) for key in ("dead", "stalled")]
    found = {
        "dead": [(runs[0], ill("dead", 3)), (runs[1], ill("dead", 9)), (runs[2], well[0])],
        "stalled": [(runs[0], well[1]), (runs[1], ill("stalled", 9)), (runs[2], ill("stalled", 1))],
        "noisy": [(runs[0], ill("noisy", 0))] * 3,
    }
    (chain,) = network_chains(found)
    assert [(one.condition, one.since) for one in chain.links] == [("dead", 9), ("stalled", 9)]
    found["stalled"] = [(run, well[1]) for run in runs]
    assert network_chains(found) == []


def test_no_condition_leads_back_to_itself():
    def effects(key, before=()):
        assert key not in before, [*before, key]
        for one in CONDITIONS[key].leads_to:
            effects(one, (*before, key))

    for key in CONDITIONS:
        effects(key)
