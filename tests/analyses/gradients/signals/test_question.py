"""Planted dead channels and broken activations are found."""

import pytest

from analyses.gradients.signals.measure import dead_fraction, network_signal
from analyses.gradients.signals.question import ANALYSIS
from analyses.registry import NotApplicableError


def test_dead_channels_are_counted_over_all_activation_layers(build):
    experiment = build.experiment(build.plan(dead_fraction=0.25))
    assert dead_fraction(experiment.runs[0]).tolist() == pytest.approx([0.25] * 30)


@pytest.mark.parametrize("fraction", [0.0, 0.25])
def test_the_share_of_dead_channels_has_an_interval(build, fraction):
    result = ANALYSIS.run(build.experiment(build.plan(dead_fraction=fraction)))
    (row,) = result.tables[0].frame.to_dict("records")
    ends = [row[name] for name in ("dead channels (%)", "95 % low", "95 % high")]
    assert ends == pytest.approx([100 * fraction] * 3)
    assert (
        f"The share of dead channels in activation layers is {100 * fraction:g}" in result.summary
    )


def test_the_signal_is_that_of_the_block_outputs(build):
    experiment = build.experiment(build.plan())
    one = network_signal("plain8", list(experiment.runs))
    first = one.profile[one.profile["epoch"] == 1]
    assert one.role == "block"
    assert list(first["depth"]) == [2, 4, 6, 8]
    assert list(first["channel_variance"]) == [3, 5, 7, 9]


def test_values_that_are_not_finite_are_counted(build):
    experiment = build.experiment(build.plan())
    frame = experiment.runs[0].activations
    frame.loc[frame.index[:3], "nonfinite"] = 2
    assert list(ANALYSIS.run(experiment).tables[0].frame["values not finite"]) == [6]


def test_without_activations_it_does_not_apply(build):
    with pytest.raises(NotApplicableError, match="activations"):
        ANALYSIS.run(build.experiment(build.plan(without=("activations",))))
