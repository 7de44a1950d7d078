"""The verdict on a candidate, from every kind of evidence there can be."""

import pytest

from analyses.reasons.candidates import CANDIDATES
from analyses.reasons.evidence import Rules, Standing, judge
from analyses.reasons.interventions import Interventions
from analyses.result import Verdict
from analyses.statistics.means import Mean

RULES = Rules(part=0.1, small=0.05, rate=0.05)
NOTHING = Interventions(None, None, None, None, None)
NAN = float("nan")


def mean(low, high):
    return Mean((low + high) / 2, low, high, "")


def of(key):
    return next(candidate for candidate in CANDIDATES if candidate.key == key)


@pytest.mark.parametrize(
    ("difference", "p_value", "standing"),
    [
        (mean(0.1, 0.2), NAN, Standing.DIFFERS),
        (mean(-0.2, -0.1), 0.01, Standing.DIFFERS_ASSOCIATED),
        (mean(-0.1, 0.2), 0.01, Standing.ASSOCIATED),
        (mean(-0.1, 0.2), 0.2, Standing.UNKNOWN),
        (Mean(0.3, None, None, ""), NAN, Standing.UNKNOWN),
        (None, NAN, Standing.UNKNOWN),
    ],
)
def test_without_intervention_nothing_is_supported(difference, p_value, standing):
    verdict = judge(of("coherence"), difference, p_value, NOTHING, RULES)
    assert verdict == (Verdict.INCONCLUSIVE, standing)


def test_what_differs_by_less_than_the_margin_is_alike():
    verdict = judge(of("coherence"), mean(-0.01, 0.015), 0.01, NOTHING, RULES)
    assert verdict == (Verdict.CONTRADICTED, Standing.ALIKE)


@pytest.mark.parametrize(
    ("gap", "removed", "verdict"),
    [
        (mean(0.2, 0.3), mean(0.05, 0.1), Verdict.SUPPORTED),
        (mean(0.2, 0.3), mean(-0.1, 0.01), Verdict.CONTRADICTED),
        (mean(0.2, 0.3), mean(-0.1, 0.05), Verdict.INCONCLUSIVE),
        (mean(-0.1, 0.3), mean(0.05, 0.1), Verdict.INCONCLUSIVE),
    ],
)
def test_re_estimated_statistics_decide_where_there_is_a_gap(gap, removed, verdict):
    found = Interventions(None, gap, removed, None, None)
    assert judge(of("staleness"), mean(-0.01, 0.01), NAN, found, RULES)[0] is verdict


@pytest.mark.parametrize(
    ("lost", "verdict"),
    [
        (mean(0.2, 0.4), (Verdict.INCONCLUSIVE, Standing.RESTS)),
        (mean(-0.02, 0.02), (Verdict.CONTRADICTED, Standing.NO_CAUSE)),
        (mean(-0.02, 0.2), (Verdict.INCONCLUSIVE, Standing.DIFFERS)),
    ],
)
def test_damage_to_a_trained_network_can_only_exclude_path_lengths(lost, verdict):
    found = Interventions(None, None, None, lost, None)
    assert judge(of("path-length"), mean(-12.0, -10.0), NAN, found, RULES) == verdict
