"""Shares of magnitudes, compared with numpy on the values behind the histograms."""

import numpy as np
import pandas as pd
import pytest

from analyses.gradients.magnitudes.measure import magnitudes

SMALLEST = float(np.finfo(np.float16).smallest_subnormal)
NORMAL = float(np.finfo(np.float16).smallest_normal)


@pytest.fixture
def recorded(build, histogram_row):
    """Two seeds of a network with histograms in epochs 1 and 3, and the values behind them."""
    generator = np.random.default_rng(0)
    values, plans = {}, []
    for seed in (1, 2):
        tables = {"activation_histograms": [], "gradient_histograms": []}
        for name, rows in tables.items():
            for epoch, step in ((1, 0), (3, 20)):
                for layer in [f"conv{depth}" for depth in range(1, 9)] + ["bn1"]:
                    drawn = np.exp2(generator.normal(-15, 6, 200)) * generator.choice([0, 1], 200)
                    values[name, seed, epoch, layer] = drawn
                    rows.append(histogram_row(epoch, step, layer, drawn))
        plans.append(build.plan(seed=seed, probed=tables))
    experiment = build.experiment(*plans)
    return magnitudes("plain8", list(experiment.runs)), values


def pooled(values, name, **keys):
    """All values of the convolutions, of one seed or epoch if given."""
    chosen = [
        drawn
        for (table, seed, epoch, layer), drawn in values.items()
        if table == name
        and layer.startswith("conv")
        and keys.get("seed", seed) == seed
        and keys.get("epoch", epoch) == epoch
    ]
    return np.concatenate(chosen)


def share(values, bound):
    present = values[values > 0]
    return float((present < bound).mean())


def test_shares_are_means_over_the_steps_of_each_seed(recorded):
    one, values = recorded
    for mean, bound in ((one.lost, SMALLEST), (one.subnormal, NORMAL)):
        by_step = [
            share(pooled(values, "gradient_histograms", seed=seed, epoch=epoch), bound)
            for seed in (1, 2)
            for epoch in (1, 3)
        ]
        assert mean.value == pytest.approx(np.mean(by_step), rel=1e-12)
        assert mean.low is None
        assert "only 2 steps" in mean.method
    assert one.steps == 4


def test_what_a_loss_scale_saves_is_counted_over_all_steps(recorded):
    one, values = recorded
    every = np.concatenate([v for key, v in values.items() if key[0] == "gradient_histograms"])
    with np.errstate(over="ignore"):
        assert np.isfinite((every * one.largest_loss_scale).astype(np.float16)).all()
        assert np.isinf((every * one.largest_loss_scale * 2).astype(np.float16)).any()
    own = pooled(values, "gradient_histograms")
    assert one.subnormal_scaled == pytest.approx(
        share(own * one.largest_loss_scale, NORMAL), rel=1e-12
    )
    assert one.zeros == pytest.approx((own == 0).mean(), rel=1e-12)


def test_activations_beyond_the_range_are_counted(recorded):
    one, values = recorded
    own = pooled(values, "activation_histograms")
    assert one.overflowing == pytest.approx((own[own > 0] >= 2.0**16).mean(), abs=1e-12)


def test_ridges_are_the_shares_of_each_power_of_two(recorded):
    one, values = recorded
    assert one.epochs == (1, 3)
    ridges = one.ridges["gradients", 3]
    assert list(ridges.index) == list(range(1, 9))
    drawn = np.concatenate([values["gradient_histograms", s, 3, "conv4"] for s in (1, 2)])
    exponents = np.floor(np.log2(drawn[drawn > 0])).astype(int)
    expected = pd.Series(exponents).value_counts(normalize=True)
    assert ridges.loc[4][ridges.loc[4] > 0].to_dict() == pytest.approx(expected.to_dict())
    assert np.diff(ridges.columns).tolist() == [1] * (ridges.shape[1] - 1)


def test_a_run_without_a_table_of_layers_is_one_ridge(build, histogram_row):
    rows = [histogram_row(1, 0, "mine", np.array([1.0, 2.0, 4.0, 0.0]))]
    tables = {"activation_histograms": rows, "gradient_histograms": rows}
    experiment = build.experiment(build.plan(probed=tables, without=("layers",)))
    one = magnitudes("plain8", list(experiment.runs))
    ridges = one.ridges["gradients", 1]
    assert ridges.shape == (1, 3)
    assert list(ridges.iloc[0]) == pytest.approx([1 / 3] * 3)


def test_gradients_that_are_all_zero_have_no_share(build, histogram_row):
    rows = [histogram_row(1, 0, "conv1", np.zeros(5))]
    tables = {"activation_histograms": rows, "gradient_histograms": rows}
    experiment = build.experiment(build.plan(probed=tables))
    one = magnitudes("plain8", list(experiment.runs))
    assert (one.lost.value, one.subnormal_scaled, one.zeros) == (None, None, 1.0)
    assert np.isnan(one.largest_loss_scale)
