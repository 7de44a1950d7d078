"""The simulated experiments have the truth that the calibration says they have."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

SOURCE = Path(__file__).parents[2] / "benchmarks" / "null_calibration.py"
SPEC = importlib.util.spec_from_file_location("null_calibration", SOURCE)
calibration = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(calibration)


@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_series_are_stationary_with_the_autocorrelation_asked_for(phi):
    series = calibration.ar1(phi, np.random.default_rng(0).standard_normal((4000, 12)))
    assert series.var(axis=0) == pytest.approx(np.ones(12), abs=0.1)
    products = (series[:, 1:] * series[:, :-1]).mean(axis=0)
    assert products == pytest.approx(np.full(11, phi), abs=0.07)


def test_the_true_parts_are_the_means_of_many_simulated_ones():
    generator = np.random.default_rng(1)
    logits, stale = np.array([0.0, 1.0, 0.3, 0.8]), np.array([0.0, -1.0, 0.0, -0.5])
    pairs = [calibration.pair_from(logits, stale, generator) for _ in range(1500)]
    running, fresh = (
        np.array([np.diff(getattr(pair, name).mean(axis=1)) for pair in pairs])
        for name in ("running", "re_estimated")
    )
    noise, removed, learning, jumps = calibration.true_parts(logits, stale)
    assert noise == pytest.approx(running.var(axis=0).sum(), rel=0.1)
    assert noise + removed + learning + jumps == pytest.approx(
        (running**2).sum(axis=1).mean(), 0.05
    )
    assert learning + jumps == pytest.approx((fresh.mean(axis=0) ** 2).sum(), rel=0.05)


def test_a_planted_link_is_in_the_changes_of_accuracy():
    generator = np.random.default_rng(2)
    correlations = []
    for _ in range(40):
        (health,), (changes,) = calibration.simulate("planted", 0.0, 30, 1, generator)
        pooled = np.corrcoef(health["quantity 1"].loc[changes.index], changes)
        correlations.append(pooled[0, 1])
    # The images' sampling noise takes some of the 0.8 away.
    assert 0.5 < np.mean(correlations) < calibration.PLANTED
