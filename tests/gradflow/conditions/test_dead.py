"""Dead units, against the binomial distribution."""

import numpy as np
import pytest
from scipy import stats

from gradflow.conditions.dead import is_dead


@pytest.mark.parametrize("count", range(0, 65, 4))
def test_a_share_counts_only_beyond_chance(count):
    chance = stats.binom.sf(count - 1, 64, 0.5) * 2
    expected = count == 64 or (count / 64 > 0.5 and chance < 0.01)
    found = is_dead(np.array([float(count), 0.0]), np.array([64.0, 10.0]), 0.5)
    assert found.tolist() == [expected, False]


def test_a_layer_of_one_channel_is_dead_if_that_is():
    assert is_dead(np.array([1.0]), np.array([1.0]), 0.5).tolist() == [True]
