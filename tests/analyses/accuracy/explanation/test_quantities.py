"""Quantities by epoch are logarithms of medians."""

import numpy as np
import pandas as pd
import pytest

from analyses.accuracy.explanation.quantities import epoch_quantities, staleness


def test_quantities_of_an_epoch_are_logarithms_of_medians(build):
    experiment = build.experiment(build.plan("resnet8", factor=0.8, skip_share=0.6))
    quantities = epoch_quantities(experiment.runs[0])
    assert list(quantities.index) == [1, 2, 3]
    assert quantities["factor per layer"].tolist() == pytest.approx([np.log(0.8)] * 3)
    first = quantities["gradient at the first layer"].tolist()
    assert first == pytest.approx([7 * np.log(0.8)] * 3)
    assert quantities["share of the skips"].tolist() == pytest.approx([0.6] * 3)


def test_staleness_is_the_logarithm_of_the_median_over_layers(build, monkeypatch):
    run = build.experiment(build.plan()).runs[0]
    rows = {
        "epoch": [1, 1, 1, 2, 2, 2],
        "layer": ["a", "b", "c"] * 2,
        "mean_shift": [0.1, 0.2, 9.0, 0.0, 0.0, 0.0],
        "variance_shift": [1.0, 1.0, 1.0, 3.0, 2.0, 1.0],
    }
    monkeypatch.setattr(type(run), "table", lambda _, name: pd.DataFrame(rows))
    stale = staleness(run)
    assert stale["shift of the means"][1] == pytest.approx(np.log(0.2))
    assert np.isnan(stale["shift of the means"][2])
    assert stale["shift of the variances"].tolist() == pytest.approx([0.0, np.log(2)])


def test_a_run_without_doses_has_none(build):
    assert staleness(build.experiment(build.plan()).runs[0]).empty
