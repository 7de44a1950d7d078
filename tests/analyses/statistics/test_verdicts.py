"""Verdicts follow the side of the bound that the interval lies on."""

import pytest

from analyses.result import Verdict
from analyses.statistics.verdicts import verdict_above, verdict_below


@pytest.mark.parametrize(
    ("low", "high", "above", "below"),
    [
        (0.6, 0.7, Verdict.SUPPORTED, Verdict.CONTRADICTED),
        (0.3, 0.4, Verdict.CONTRADICTED, Verdict.SUPPORTED),
        (0.4, 0.6, Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE),
        (None, None, Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE),
        (float("nan"), 0.9, Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE),
    ],
)
def test_verdicts_follow_the_side_the_interval_lies_on(low, high, above, below):
    assert verdict_above(low, high, 0.5) is above
    assert verdict_below(low, high, 0.5) is below
