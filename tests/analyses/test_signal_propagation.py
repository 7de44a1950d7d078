"""Planted dead channels and broken activations are found."""

import pytest

from analyses.layer_signals import dead_fraction, signal
from analyses.registry import NotApplicableError
from analyses.result import Verdict
from analyses.signal_propagation import ANALYSIS, run


def of(result, key):
    return next(finding for finding in result.findings if finding.key.startswith(key))


def test_dead_channels_are_counted_over_all_activation_layers(build):
    experiment = build.experiment(build.plan(dead_fraction=0.25))
    assert dead_fraction(experiment.runs[0]).tolist() == pytest.approx([0.25] * 30)


@pytest.mark.parametrize(
    ("fraction", "verdict"), [(0.0, Verdict.CONTRADICTED), (0.25, Verdict.SUPPORTED)]
)
def test_channels_die_where_they_were_planted_dead(build, fraction, verdict):
    experiment = build.experiment(build.plan(dead_fraction=fraction))
    assert of(ANALYSIS.run(experiment), "dead-channels").verdict is verdict


def test_the_threshold_is_an_argument(build):
    experiment = build.experiment(build.plan(dead_fraction=0.25))
    assert of(run(experiment, dead=0.3), "dead-channels").verdict is Verdict.CONTRADICTED


def test_the_signal_is_that_of_the_block_outputs(build):
    experiment = build.experiment(build.plan())
    one = signal("plain8", list(experiment.runs))
    first = one.profile[one.profile["epoch"] == 1]
    assert one.role == "block"
    assert list(first["depth"]) == [2, 4, 6, 8]
    assert list(first["channel_variance"]) == [3, 5, 7, 9]


def test_values_that_are_not_finite_are_counted(build):
    experiment = build.experiment(build.plan())
    frame = experiment.runs[0].activations
    frame.loc[frame.index[:3], "nonfinite"] = 2
    finding = of(ANALYSIS.run(experiment), "finite")
    assert finding.verdict is Verdict.CONTRADICTED
    assert finding.estimates[0].value == 6


def test_without_activations_it_does_not_apply(build):
    with pytest.raises(NotApplicableError, match="activations"):
        ANALYSIS.run(build.experiment(build.plan(without=("activations",))))
