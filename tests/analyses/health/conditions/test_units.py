"""Dead units of layers that do not run in every step, as experts that a router chooses."""

import pandas as pd
import pytest

from analyses.health.conditions.units import dead_answer
from analyses.result import Verdict


class Recorded:
    """A run of two activation layers with four channels; `counts` are of the dead ones by step."""

    layers = pd.DataFrame(
        {"layer": ["a", "b"], "role": ["activation"] * 2, "type": ["ReLU"] * 2, "shape": ["4"] * 2}
    )

    def __init__(self, **counts):
        rows = [
            {"epoch": 1, "step": step, "layer": layer, "dead_channels": float(count)}
            for layer, by_step in counts.items()
            for step, count in by_step.items()
        ]
        self.activations = pd.DataFrame(rows)


def read(**counts):
    return dead_answer(Recorded(**counts), 0.5, 20)


ALIVE = dict.fromkeys(range(40), 0)


def test_a_layer_that_was_dead_whenever_it_ran_is_dead():
    found = read(a=ALIVE, b=dict.fromkeys(range(0, 40, 5), 4))
    assert (found.verdict, found.layer, found.value) == (Verdict.SUPPORTED, "b", 1.0)
    assert "over the last 6 of 8 recorded steps" in found.method


def test_a_layer_that_did_not_run_in_the_last_steps_is_read_where_it_did():
    found = read(a=ALIVE, b=dict.fromkeys(range(8), 1))
    assert (found.verdict, found.layer, found.value) == (Verdict.CONTRADICTED, "b", 0.25)


def test_the_layer_that_died_first_is_named_with_the_step_since_which_it_is_dead():
    def dying(step):
        return {number: 4 if number >= step else 0 for number in range(40)}

    found = read(a=dying(30), b=dying(12))
    assert (found.layer, found.since) == ("b", 12)
    found = read(a=dying(12), b=dying(12))
    assert (found.layer, found.since) == ("a", 12)
    found = read(a=dying(30), b=dying(12) | {25: 0})
    assert (found.layer, found.since) == ("b", 26)


def test_an_expert_that_is_dead_whenever_it_is_chosen_is_so_since_it_was_first():
    assert read(a=ALIVE, b=dict.fromkeys(range(10, 40, 3), 4)).since == 10


@pytest.mark.parametrize("steps", [1, 5])
def test_a_layer_that_ran_in_a_few_of_many_steps_is_not_judged(steps):
    found = read(a=ALIVE, b=dict.fromkeys(range(steps), 4))
    assert (found.verdict, found.layer) == (Verdict.CONTRADICTED, "a")


def test_a_short_run_is_judged_by_the_steps_that_there_are():
    assert read(a={0: 0, 1: 0}, b={0: 4, 1: 4}).layer == "b"
