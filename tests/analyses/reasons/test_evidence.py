"""The verdict on a possible reason, from every kind of evidence there can be."""

import pytest

from analyses.reasons.evidence import EvidenceLevel, Thresholds, verdict_and_level
from analyses.reasons.interventions import Interventions
from analyses.reasons.possible_reasons import POSSIBLE_REASONS
from analyses.result import Verdict
from analyses.statistics.means import Mean

THRESHOLDS = Thresholds(removable_share=0.1, small_loss=0.05, alpha=0.05)
NOTHING = Interventions(None, None, None, None, None)
NAN = float("nan")


def mean(low, high):
    return Mean((low + high) / 2, low, high, "")


def of(key):
    return next(reason for reason in POSSIBLE_REASONS if reason.key == key)


@pytest.mark.parametrize(
    ("difference", "p_value", "level"),
    [
        (mean(0.1, 0.2), NAN, EvidenceLevel.DIFFERS),
        (mean(-0.2, -0.1), 0.01, EvidenceLevel.DIFFERS_ASSOCIATED),
        (mean(-0.1, 0.2), 0.01, EvidenceLevel.ASSOCIATED),
        (mean(-0.1, 0.2), 0.2, EvidenceLevel.UNKNOWN),
        (Mean(0.3, None, None, ""), NAN, EvidenceLevel.UNKNOWN),
        (None, NAN, EvidenceLevel.UNKNOWN),
    ],
)
def test_without_intervention_nothing_is_supported(difference, p_value, level):
    verdict = verdict_and_level(of("coherence"), difference, p_value, NOTHING, THRESHOLDS)
    assert verdict == (Verdict.INCONCLUSIVE, level)


def test_what_differs_by_less_than_the_margin_is_alike():
    verdict = verdict_and_level(of("coherence"), mean(-0.01, 0.015), 0.01, NOTHING, THRESHOLDS)
    assert verdict == (Verdict.CONTRADICTED, EvidenceLevel.ALIKE)


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
    assert (
        verdict_and_level(of("staleness"), mean(-0.01, 0.01), NAN, found, THRESHOLDS)[0] is verdict
    )


@pytest.mark.parametrize(
    ("lost", "verdict"),
    [
        (mean(0.2, 0.4), (Verdict.INCONCLUSIVE, EvidenceLevel.NETWORK_RESTS_ON_IT)),
        (mean(-0.02, 0.02), (Verdict.CONTRADICTED, EvidenceLevel.NO_CAUSE)),
        (mean(-0.02, 0.2), (Verdict.INCONCLUSIVE, EvidenceLevel.DIFFERS)),
    ],
)
def test_damage_to_a_trained_network_can_only_exclude_path_lengths(lost, verdict):
    found = Interventions(None, None, None, lost, None)
    assert (
        verdict_and_level(of("path-length"), mean(-12.0, -10.0), NAN, found, THRESHOLDS) == verdict
    )
