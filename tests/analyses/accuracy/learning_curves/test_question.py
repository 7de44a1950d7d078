"""Curves, new bests, and the reference beside them."""

import numpy as np
import pandas as pd
import pytest

from analyses.accuracy.learning_curves.question import ANALYSIS, mean_curves, new_bests
from analyses.accuracy.learning_curves.reference import (
    CLASSES,
    has_reference_options,
    reference_curves,
)
from analyses.registry import NotApplicableError
from analyses.statistics.proportions import wilson_interval

REFERENCE_OPTIONS = {
    "batch_size": 24,
    "lr": 0.0005,
    "weight_decay": 0.0005,
    "epochs": 10,
    "image_size": 300,
}


def test_one_network_alone_is_described(build):
    result = ANALYSIS.run(build.experiment(build.plan(right=build.right_of([0.2, 0.3, 0.5]))))
    assert result.findings == ()
    assert "50.0 % in plain8" in result.summary
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


@pytest.mark.parametrize(("images", "imbalanced"), [(9, False), (5, True)])
def test_the_balanced_accuracy_is_said_where_the_classes_differ_in_size(build, images, imbalanced):
    right = np.zeros((2, images), dtype=bool)
    right[1, ::2] = True  # all of class a, 5 of 9 or 3 of 5 images, and none of class b
    plan = build.plan(right=right, epochs=2, classes=["a", "b"], images=images)
    frame = ANALYSIS.run(build.experiment(plan)).tables[0].frame
    assert list(frame.get("balanced accuracy then", [])) == ([0.5] if imbalanced else [])


def test_the_reference_stands_beside_runs_of_its_own_setting_only(build):
    right = build.right_of([0.3] * 10)
    own = build.plan("plain34", right=right, epochs=10, steps=1, configuration=REFERENCE_OPTIONS)
    smaller = build.plan(
        "resnet34", epochs=10, steps=1, configuration={**REFERENCE_OPTIONS, "image_size": 96}
    )
    experiment = build.experiment(own, smaller)
    assert [has_reference_options(run) for run in experiment.runs] == [True, False]
    figure = ANALYSIS.run(experiment).figures[0]
    labels = {line.get_label() for axis in figure.draw().axes for line in axis.lines}
    assert "plain34, reference" in labels
    assert "resnet34, reference" not in labels
    assert "overlap" in figure.caption
    assert tuple(sorted(own.classes)) == CLASSES
