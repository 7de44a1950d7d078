"""Curves, new bests, and the paired difference between residual and plain networks."""

import numpy as np
import pandas as pd
import pytest

from analyses.comparison import difference
from analyses.learning_curves import ANALYSIS, mean_curves, new_bests
from analyses.reference import CLASSES, has_reference_setting, reference_curves
from analyses.registry import NotApplicableError
from analyses.result import Verdict
from analyses.statistics import wilson_interval

SETTING = {
    "batch_size": 24,
    "lr": 0.0005,
    "weight_decay": 0.0005,
    "epochs": 10,
    "image_size": 300,
}


def networks(build, plain, residual, seeds=(2025,), images=100):
    plans = []
    for name, final, share in (("plain8", plain, None), ("resnet8", residual, 0.5)):
        for seed in seeds:
            right = build.right_of([0.2, 0.3, final + 0.01 * (seed % 3)], images, seed)
            plans.append(build.plan(name, seed, right=right, skip_share=share))
    return build.experiment(*plans)


def test_a_large_difference_on_the_same_images_is_supported(build):
    (finding,) = ANALYSIS.run(networks(build, 0.4, 0.7)).findings
    assert finding.verdict is Verdict.SUPPORTED
    assert finding.estimates[0].value == pytest.approx(30)
    assert "p < 0.001" in finding.meaning
    assert any("optimistic" in caveat for caveat in finding.caveats)


def test_the_sign_of_the_difference_decides(build):
    (finding,) = ANALYSIS.run(networks(build, 0.7, 0.4)).findings
    assert finding.verdict is Verdict.CONTRADICTED
    assert finding.meaning.startswith("resnet8 ends below plain8")


def test_equal_networks_cannot_be_told_apart(build):
    (finding,) = ANALYSIS.run(networks(build, 0.5, 0.5)).findings
    assert finding.verdict is Verdict.INCONCLUSIVE


def test_three_seeds_are_paired(build):
    experiment = networks(build, 0.4, 0.7, seeds=(1, 2, 3))
    (finding,) = ANALYSIS.run(experiment).findings
    assert finding.estimates[0].value == pytest.approx(30)
    assert "3 seeds" in finding.estimates[0].method


def test_without_predictions_the_scalars_give_a_difference_without_interval(build):
    experiment = networks(build, 0.4, 0.7)
    bare = []
    for run in experiment.runs:
        run._tables["predictions"] = run.predictions.iloc[:0]
        bare.append(run)
    gap = difference([(bare[0], bare[1])])
    assert gap is not None
    assert (gap.value, gap.low) == (pytest.approx(0.3), None)


def test_one_network_alone_is_described(build):
    result = ANALYSIS.run(build.experiment(build.plan(right=build.right_of([0.2, 0.3, 0.5]))))
    assert result.findings == ()
    assert "plain8 at 50.0 %" in result.summary
    result.figures[0].draw()


def test_a_traced_run_without_validation_still_has_its_training_curve(build):
    result = ANALYSIS.run(build.experiment(build.plan()))
    assert "training loss" in result.summary
    result.figures[0].draw()


def test_without_any_scalar_it_does_not_apply(build):
    with pytest.raises(NotApplicableError, match="train_loss"):
        ANALYSIS.run(build.experiment(build.plan(without=("epochs",))))


def test_new_bests_of_the_reference_are_those_it_reports():
    for network, epochs in (("plain34", [1, 3, 7]), ("resnet34", [1, 4, 5, 6, 8])):
        curves = reference_curves(network)
        assert list(curves["epoch"][new_bests(curves["val_accuracy"])]) == epochs


def test_missing_epochs_are_no_new_bests():
    bests = new_bests(pd.Series([np.nan, 0.5, np.nan, 0.4, 0.6]))
    assert list(bests) == [False, True, False, False, True]


def test_the_band_counts_the_images_of_one_seed():
    one = pd.DataFrame({"epoch": [1.0], "val_accuracy": [0.4], "images": [50.0]})
    mean = mean_curves([one, one.assign(val_accuracy=0.6)])
    assert (mean["low"][0], mean["high"][0]) == wilson_interval(25, 50)


def test_the_reference_stands_beside_runs_of_its_own_setting_only(build):
    right = build.right_of([0.3] * 10)
    own = build.plan("plain34", right=right, epochs=10, steps=1, configuration=SETTING)
    smaller = build.plan(
        "resnet34", epochs=10, steps=1, configuration={**SETTING, "image_size": 96}
    )
    experiment = build.experiment(own, smaller)
    assert [has_reference_setting(run) for run in experiment.runs] == [True, False]
    figure = ANALYSIS.run(experiment).figures[0]
    labels = {line.get_label() for axis in figure.draw().axes for line in axis.lines}
    assert "plain34, reference" in labels
    assert "resnet34, reference" not in labels
    assert "overlap" in figure.caption
    assert tuple(sorted(own.classes)) == CLASSES
