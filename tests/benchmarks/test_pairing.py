import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

SOURCE = Path(__file__).parents[2] / "benchmarks" / "pairing.py"
SPEC = importlib.util.spec_from_file_location("pairing", SOURCE)
pairing = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(pairing)

BATCHES = pairing.Batches(size=4, count=2, device=torch.device("cpu"))


def trainer(seed: int) -> "pairing.Trainer":
    torch.manual_seed(seed)
    return pairing.Trainer(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)))


@pytest.mark.parametrize("pairs", [10, 21, 30])
def test_the_interval_of_the_median_covers_at_least_95_percent_and_not_one_rank_more(pairs):
    ranks = list(np.arange(1, pairs + 1))
    low, high = pairing.median_interval(ranks)
    # The median lies between the ranks low and high when low to high - 1 values are below it.
    covered = stats.binom(pairs, 0.5).pmf(np.arange(low, high)).sum()
    narrower = stats.binom(pairs, 0.5).pmf(np.arange(low + 1, high - 1)).sum()
    assert narrower < 0.95 <= covered


def test_twins_have_the_same_losses_and_as_many_ratios_as_pairs():
    ratios, identical = pairing.paired_ratios(trainer(0), trainer(0), BATCHES, pairs=4, every=2)
    assert identical
    assert len(ratios) == 4
    assert ratios == sorted(ratios)


def test_networks_that_differ_are_told_by_their_losses():
    _, identical = pairing.paired_ratios(trainer(0), trainer(1), BATCHES, pairs=1)
    assert not identical


def test_the_calls_around_a_step_are_part_of_every_step():
    calls = []
    watched = trainer(0)
    watched.before = lambda: calls.append("before")
    watched.after = lambda loss: calls.append("after")
    watched.time([BATCHES.draw(torch.Generator())] * 2)
    assert calls == ["before", "after"] * 2
