"""What the overview shows of a network, against the planted numbers."""

import numpy as np
import pytest

from analyses.overview.measure import network_overview
from analyses.registry import NotApplicableError

FALLS = [0.9, 0.9, 0.3, 0.9]  # of the accuracy: a fall and a rise beyond noise on 60 images


def overview_of(build, **options):
    experiment = build.experiment(build.plan(**options))
    return network_overview("plain8", list(experiment.runs))


def test_gradients_are_medians_of_the_root_mean_square_by_depth_and_epoch(build):
    experiment = build.experiment(build.plan(seed=1), build.plan(seed=2))
    generator = np.random.default_rng(0)
    for run in experiment.runs:
        run.gradients["rms"] = generator.lognormal(size=len(run.gradients))
    one = network_overview("plain8", list(experiment.runs))
    assert list(one.gradients.index) == list(range(1, 9))
    assert list(one.gradients.columns) == [1, 2, 3]
    values = [
        value
        for run in experiment.runs
        for layer, epoch, value in zip(
            run.gradients["layer"], run.gradients["epoch"], run.gradients["rms"], strict=True
        )
        if layer == "conv5" and epoch == 2
    ]
    assert len(values) == 20
    assert one.gradients.loc[5, 2] == pytest.approx(np.median(values), rel=1e-12)


def test_stages_are_the_layers_of_one_output_shape(build):
    stages = overview_of(build).stages
    assert stages.to_numpy().tolist() == [[0, 3, "8x4x4"], [4, 7, "16x2x2"]]


def test_the_factor_is_the_planted_one_over_the_depth(build):
    one = overview_of(build, factor=0.8)
    assert (one.factor, one.low, one.high) == pytest.approx((0.8**8,) * 3)
    assert one.layers == 8


def test_accuracy_is_that_of_the_predictions_and_training_accuracy_that_of_the_epochs(build):
    right = build.right_of([0.2, 0.5, 0.7])
    curves = overview_of(build, right=right).curves
    assert list(curves["accuracy"]) == pytest.approx(list(right.mean(axis=1)))
    assert list(curves["train_accuracy"]) == pytest.approx([0.3, 0.65, 1 - 0.7 / 3])
    assert (curves["low"] < curves["accuracy"]).all()
    assert curves["fresh"].isna().all()


@pytest.mark.parametrize(
    ("re_estimated", "stale", "known"),
    [(None, [False, False], False), (FALLS, [False, False], True), ([0.9] * 4, [True, True], True)],
)
def test_a_jump_is_stale_where_re_estimated_statistics_do_not_have_it(
    build, re_estimated, stale, known
):
    again = None if re_estimated is None else build.right_of(re_estimated)
    one = overview_of(build, epochs=4, right=build.right_of(FALLS), recalibrated=again)
    assert one.changes == 3
    assert list(one.marked["epoch"]) == [3, 4]
    assert list(one.marked["change"]) == pytest.approx([-0.6, 0.6])
    assert list(one.marked["accuracy"]) == pytest.approx([0.3, 0.9])
    assert list(one.marked["stale"]) == stale
    assert one.re_estimated is known
    fresh = np.full(2, np.nan) if again is None else np.diff(again.mean(axis=1))[1:]
    assert list(one.marked["fresh_change"]) == pytest.approx(list(fresh), nan_ok=True)


def test_a_jump_between_epochs_that_were_not_re_estimated_is_not_split(build):
    right = build.right_of(FALLS)
    experiment = build.experiment(build.plan(epochs=4, right=right, recalibrated=right))
    (run,) = experiment.runs
    run.recalibration.loc[run.recalibration["epoch"] == 2, "epoch"] = 7
    one = network_overview("plain8", [run])
    # The change into epoch 3 began in epoch 2; that into epoch 4 is known.
    assert list(one.marked["fresh_change"]) == pytest.approx([np.nan, 0.6], nan_ok=True)


def test_a_jump_the_other_way_is_not_the_same_jump(build):
    one = overview_of(
        build,
        epochs=3,
        right=build.right_of([0.9, 0.3, 0.3]),
        recalibrated=build.right_of([0.3, 0.9, 0.9]),
    )
    assert list(one.marked["stale"]) == [True]


@pytest.mark.parametrize("right", [None, np.ones((1, 60), dtype=bool)])
def test_without_two_epochs_of_predictions_nothing_is_marked(build, right):
    one = overview_of(build, epochs=1, right=right)
    assert one.changes == 0
    assert one.marked.empty
    assert one.curves["accuracy"].isna().all() == (right is None)


def test_gradients_that_are_not_finite_leave_a_hole(build):
    experiment = build.experiment(build.plan())
    frame = experiment.runs[0].gradients
    frame.loc[(frame["layer"] == "conv2") & (frame["epoch"] == 1), "rms"] = np.inf
    one = network_overview("plain8", list(experiment.runs))
    assert np.isnan(one.gradients.loc[2, 1])
    assert one.gradients.notna().to_numpy().sum() == 8 * 3 - 1


def test_without_layers_with_weights_it_does_not_apply(build):
    experiment = build.experiment(build.plan(without=("layers",)))
    with pytest.raises(NotApplicableError, match="convolutions or linear layers"):
        network_overview("plain8", list(experiment.runs))


def test_the_accuracy_with_fresh_statistics_is_that_of_the_same_images(build):
    again = build.right_of([0.6, 0.8, 0.9])
    curves = overview_of(build, right=build.right_of([0.2, 0.5, 0.7]), recalibrated=again).curves
    assert list(curves["fresh"]) == pytest.approx(list(again.mean(axis=1)))


def test_a_loss_is_sure_if_an_exact_test_on_the_same_images_says_so(build):
    # Images gained by re-estimation: 3, 30 and -30 of 60; two-sided p-values 0.25, 2^-29, 2^-29.
    options = {"right": [0.4, 0.4, 0.9], "recalibrated": [0.45, 0.9, 0.4]}
    one = overview_of(build, **{key: build.right_of(value) for key, value in options.items()})
    assert list(one.curves["lost"]) == [False, True, False]
