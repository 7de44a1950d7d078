"""The factor per layer is recovered from planted profiles; theory against published values."""

import numpy as np
import pandas as pd
import pytest

from analyses.gradients.profile.measure import factor_over_depth, gradient_profile
from analyses.reading.layer_gradients import (
    layer_gradients,
    log_factors,
    pivot_by_step,
    weighted_layers,
)
from analyses.registry import NotApplicableError

DEPTH = np.arange(1.0, 9.0)
STAGE = np.repeat([0.0, 1.0], 4)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.21])
def test_a_geometric_profile_gives_its_factor_exactly(factor):
    logs = np.log(factor) * (8 - DEPTH)[None]
    assert np.exp(log_factors(logs, DEPTH, STAGE)) == pytest.approx([factor])


def test_steps_between_stages_do_not_count():
    logs = np.log(0.9) * (8 - DEPTH)[None] + np.where(STAGE == 0, 100.0, 0.0)
    assert np.exp(log_factors(logs, DEPTH, STAGE)) == pytest.approx([0.9])


def test_the_slope_is_least_squares_with_an_intercept_for_each_stage():
    logs = np.random.default_rng(0).standard_normal((1, 8))
    design = np.column_stack([DEPTH, STAGE == 0, STAGE == 1]).astype(float)
    slope = np.linalg.lstsq(design, logs[0], rcond=None)[0][0]
    assert log_factors(logs, DEPTH, STAGE) == pytest.approx([-slope])


def test_missing_layers_are_left_out_and_small_stages_ignored():
    logs = np.log(0.9) * (8 - DEPTH)[None].repeat(2, axis=0)
    logs[0, :2] = np.nan  # two layers left in the first stage: the second stage alone counts
    logs[1] = np.nan
    result = log_factors(logs, DEPTH, STAGE)
    assert np.exp(result[0]) == pytest.approx(0.9)
    assert np.isnan(result[1])


def test_convolutions_come_first_and_linear_layers_stand_in():
    frame = pd.DataFrame(
        {
            "layer": ["a", "b", "c", "d"],
            "depth": [2, 1, 3, 4],
            "stage": 0,
            "role": ["linear", "linear", "linear", "convolution"],
        }
    )
    assert list(weighted_layers(frame)["layer"]) == ["b", "a", "c"]
    assert list(weighted_layers(frame.assign(role="convolution"))["layer"]) == ["b", "a", "c", "d"]


def test_the_pivot_has_the_steps_in_which_a_named_layer_was_recorded_and_the_last_of_its_values():
    rows = [(2, 9, "a", 1.0), (1, 4, "b", 2.0), (1, 4, "a", 3.0), (1, 4, "a", 4.0)]
    rows += [(1, 7, "other", 5.0), (1, 7, None, 6.0), (2, 9, "c", 7.0)]
    frame = pd.DataFrame(rows, columns=["epoch", "step", "layer", "norm"])
    table = pivot_by_step(frame, "norm", pd.Series(["b", "missing", "a", "b"]))
    assert list(table.index) == [(1, 4), (2, 9)]
    assert list(table.columns) == ["b", "missing", "a", "b"]
    np.testing.assert_equal(table.to_numpy(), [[2, np.nan, 4, 2], [np.nan, np.nan, 1, np.nan]])
    # From the second time on names and steps of the frame are known.
    assert list(pivot_by_step(frame, "norm", pd.Series(["other"])).index) == [(1, 7)]


def test_a_run_gives_back_its_planted_factor_over_the_depth(build):
    experiment = build.experiment(build.plan(factor=0.8, epochs=2))
    one = gradient_profile("plain8", list(experiment.runs))
    assert factor_over_depth(one) == pytest.approx((0.8**8, 0.8**8, 0.8**8))
    assert one.first == pytest.approx(0.8)
    assert list(one.epochs["factor"]) == pytest.approx([0.8, 0.8])
    assert list(one.weights["depth"]) == list(range(1, 9))


def test_a_run_without_layers_says_what_is_missing(build):
    experiment = build.experiment(build.plan(without=("layers",)))
    with pytest.raises(NotApplicableError, match="0 convolutions or linear layers"):
        layer_gradients(experiment.runs[0])
