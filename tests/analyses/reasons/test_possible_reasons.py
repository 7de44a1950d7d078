"""Each possible reason against the numbers planted in a run, or against numpy."""

import numpy as np
import pytest
from scipy import stats

from analyses.reasons.possible_reasons import (
    POSSIBLE_REASONS,
    coherence,
    dead_channels,
    factor_per_layer,
    noise_scale,
    path_length,
    staleness,
    update_to_weight,
    variance_spread,
)

MEASURED = {reason.key: reason for reason in POSSIBLE_REASONS}


def run_of(build, **options):
    options = {"epochs": 2, "steps": 3, **options}
    return build.experiment(build.plan("resnet8", skip_share=0.6, **options)).runs[0]


def test_quantities_of_the_steps_are_the_planted_ones(build):
    run = run_of(build, factor=1.3, dead_fraction=0.25)
    assert np.exp(factor_per_layer(run)) == pytest.approx(np.full(6, 1.3))
    assert dead_channels(run) == pytest.approx(np.full(6, 0.25))
    assert np.exp(update_to_weight(run)) == pytest.approx(np.full(6, 0.001), rel=0.2)
    # The planted variance of a layer is 1 + its depth.
    expected = np.std(np.log(1 + np.arange(1, 9)))
    assert variance_spread(run) == pytest.approx(np.full(6, expected))


def test_coherence_is_that_of_all_parameters_together(build):
    row = {"samples": 8, "min_cosine": -0.5, "signal_to_noise": 0.1}
    rows = [
        {"epoch": epoch, "layer": layer, "mean_cosine": cosine, **row}
        for epoch, cosine in ((1, 0.2), (2, 0.1))
        for layer, cosine in (("(model)", cosine), ("conv1", 0.9))
    ]
    assert coherence(run_of(build, probed={"gradient_coherence": rows})) == pytest.approx(
        [0.2, 0.1]
    )


def test_staleness_is_averaged_over_layers(build):
    rows = [
        {"epoch": 1, "layer": layer, "mean_shift": shift, "variance_shift": 9.0, "channels": 8}
        for layer, shift in (("bn1", 0.1), ("bn2", 0.5))
    ]
    assert staleness(run_of(build, probed={"batchnorm_staleness": rows})) == pytest.approx([0.3])


def test_path_length_of_linear_blocks_is_the_mean_of_their_binomial(build):
    rows = [
        {"epoch": 1, "length": length, "paths": 1.0, "gradient_norm": 1.0, "draws": None}
        | {"share": stats.binom.pmf(length, 4, 0.2)}
        for length in range(5)
    ]
    assert path_length(run_of(build, probed={"path_lengths": rows})) == pytest.approx([0.8])


def test_the_noise_scale_averages_before_it_divides(build):
    def draw(epoch, number, noise, squared):
        sizes = {"small_batch": 8, "large_batch": 80, "small_squared_norm": 1.0}
        row = {"epoch": epoch, "draw": number, "large_squared_norm": 1.0, **sizes}
        return {**row, "noise": noise, "squared_gradient": squared}

    # A single draw of |G|^2 may be negative; so may its mean, and then there is no ratio.
    rows = [draw(1, 0, 10.0, 3.0), draw(1, 1, 30.0, -1.0), draw(2, 0, 10.0, -1.0)]
    assert np.exp(noise_scale(run_of(build, probed={"noise_scale": rows}))) == pytest.approx([20.0])


def test_nothing_recorded_is_an_empty_series(build):
    bare = run_of(build, without=("gradients", "activations", "parameters", "junctions", "layers"))
    for reason in POSSIBLE_REASONS:
        assert len(reason.measure(bare)) == 0


def test_logarithms_are_shown_as_factors():
    assert MEASURED["norm-profile"].shown(np.log(1.2)) == pytest.approx(1.2)
    assert MEASURED["coherence"].shown(0.2) == pytest.approx(0.2)
