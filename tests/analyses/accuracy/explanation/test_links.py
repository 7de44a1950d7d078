"""Responses and lags are set beside each other by epoch; verdicts follow the p-value."""

import numpy as np
import pandas as pd
import pytest

from analyses.accuracy.explanation.links import (
    Link,
    correlations,
    link,
    link_verdict,
    real_changes,
    removed_movement,
)
from analyses.accuracy.recalibration.measure import RecalibrationSeries
from analyses.result import Verdict
from analyses.statistics.associations_over_epochs import StrongestAssociation


def frame(values, start=1):
    return pd.DataFrame({"norm": values}, index=range(start, start + len(values)))


def series(values, start=2):
    return pd.Series(values, index=range(start, start + len(values)))


def association(correlation=0.0, p=0.5, smallest=0.01, critical_rho=0.3):
    return StrongestAssociation((correlation,), 0, p, smallest, critical_rho, 40, "seeds swapped")


def test_the_real_change_and_the_movement_removed_are_those_of_the_two_series():
    running = np.array([[1, 0, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]], dtype=float)
    fresh = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]], dtype=float)
    pair = RecalibrationSeries("1", (1, 2, 3), running, fresh)
    assert real_changes(pair).to_dict() == {2: 0.25, 3: 0.0}
    assert removed_movement(pair).to_dict() == {2: 0.25 - 0.0625, 3: 0.25}


@pytest.mark.parametrize(("lag", "epoch"), [(0, "same epoch"), (1, "epoch before")])
def test_a_link_is_found_at_its_lag(lag, epoch):
    generator = np.random.default_rng(lag)
    quantities, responses = [], []
    for _ in range(5):
        values = generator.standard_normal(12)
        quantities.append(frame(values))
        noise = 0.1 * generator.standard_normal(11)
        responses.append(series((values[1:] if lag == 0 else values[:-1]) + noise))
    found = link(quantities, responses)
    assert found.strongest == ("norm", lag)
    assert link_verdict(found, 0.05, 0.5) is Verdict.SUPPORTED
    rows = correlations("mine", found)
    assert rows.loc[rows["Spearman rho"].idxmax(), "epoch"] == epoch


def test_runs_meet_on_the_epochs_that_they_share():
    generator = np.random.default_rng(0)
    lengths = (12, 9, 10)
    found = link(
        [frame(generator.random(length)) for length in lengths],
        [series(generator.random(length - 1)) for length in lengths],
    )
    assert (found.changes, found.runs) == (8, 3)


@pytest.mark.parametrize(
    ("quantity", "response", "missing"),
    [
        (np.arange(5.0), np.random.default_rng(0).random(4), "4 changes"),
        (np.ones(10), np.random.default_rng(0).random(9), "no quantity that varies"),
        (np.arange(10.0), np.zeros(9), "does not change"),
        (np.where(np.arange(10) == 4, np.nan, 1.0), np.arange(9.0), "no quantity"),
    ],
)
def test_what_is_missing_is_said(quantity, response, missing):
    found = link([frame(quantity)], [series(response)])
    assert found.association is None
    assert missing in found.missing
    assert link_verdict(found, 0.05, 0.5) is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("association", "verdict"),
    [
        (association(0.8, p=0.01), Verdict.SUPPORTED),
        (association(0.0, critical_rho=0.3), Verdict.CONTRADICTED),
        (association(0.0, critical_rho=0.6), Verdict.INCONCLUSIVE),
        (association(0.4, critical_rho=0.3), Verdict.INCONCLUSIVE),
        (association(0.9, p=0.11, smallest=0.11), Verdict.INCONCLUSIVE),
        (association(0.0, smallest=0.11), Verdict.INCONCLUSIVE),
    ],
)
def test_verdicts_follow_p_value_and_intervals(association, verdict):
    assert link_verdict(Link(association, (("norm", 0),), 8, 5), 0.05, 0.5) is verdict
