"""How many steps must lie beyond a bound."""

import pytest
from scipy import stats

from gradflow.conditions.windows import enough


@pytest.mark.parametrize("steps", [6, 7, 12, 20, 33])
def test_the_interval_of_the_median_then_lies_beyond_the_bound(steps):
    # The k-th smallest of n values is below the median with the chance P(Binomial(n, 1/2) < k).
    k = steps - enough(steps) + 1
    assert stats.binom.cdf(k - 1, steps, 0.5) <= 0.025 < stats.binom.cdf(k, steps, 0.5)


def test_five_steps_never_suffice():
    assert enough(5) is None
