"""The balanced accuracy beside scikit-learn's, and where it is said."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from analyses.accuracy.difference.question import ANALYSIS as DIFFERENCE
from analyses.accuracy.learning_curves.question import ANALYSIS as CURVES
from analyses.reading.balance import balanced_by_epoch, balanced_words
from analyses.statistics.proportions import wilson_interval


def planned(build, keep=1):
    """Two networks with two seeds, of whose 60 images classes 1 and 2 have one in `keep` left."""
    generator = np.random.default_rng(1)
    plans = [
        build.plan(
            network,
            seed=seed,
            classes=["a", "b", "c"],
            right=generator.random((3, 60)) < 0.6,
            skip_share=0.5 if network == "resnet8" else None,
        )
        for network in ("plain8", "resnet8")
        for seed in (1, 2)
    ]
    experiment = build.experiment(*plans)
    for run in experiment.runs:
        rows = run.predictions
        gone = (rows.target != 0) & (rows.image // 3 % keep != 0)
        run._tables["predictions"] = rows[~gone]
    return experiment


def test_it_is_that_of_scikit_learn_at_every_epoch(build):
    for run in planned(build, keep=4).runs:
        found = balanced_by_epoch(run).set_index("epoch")
        assert list(found.index) == [1, 2, 3]
        for epoch, rows in run.predictions.groupby("epoch"):
            expected = balanced_accuracy_score(rows.target, rows.prediction)
            assert found.balanced[epoch] == pytest.approx(expected)
            assert found.balanced_low[epoch] < expected < found.balanced_high[epoch]


def test_a_copy_of_an_image_does_not_count_again(build):
    run = build.experiment(build.plan(right=np.ones((3, 60), dtype=bool), copies=45)).runs[0]
    (size,) = {len(rows) for _, rows in run.predictions.groupby("epoch")}
    assert size == 60
    found = balanced_by_epoch(run)
    # 15 distinct images, three of each class but of that of the copies.
    assert (found.empty, next(iter(found.columns))) == (True, "epoch")


def test_where_classes_are_of_one_size_nothing_is_said_of_it(build):
    experiment = planned(build)
    assert balanced_by_epoch(experiment.runs[0]).empty
    assert balanced_words(experiment.runs) == ""
    result = CURVES.run(experiment)
    assert "balanced" not in f"{result.summary} {result.method} {result.figures[0].caption}"
    meanings = [finding.meaning for finding in DIFFERENCE.run(experiment).findings]
    assert not any("balanced" in meaning for meaning in meanings)


def test_the_report_says_and_draws_it_beside_the_accuracy(build):
    experiment = planned(build, keep=4)
    result = CURVES.run(experiment)
    words = {name: balanced_words(experiment.of_network(name)) for name in experiment.networks}
    expected = [
        balanced_accuracy_score(
            *run.predictions.query("epoch == 3")[["target", "prediction"]].T.values
        )
        for run in experiment.of_network("plain8")
    ]
    assert words["plain8"].startswith(f"{100 * np.mean(expected):.1f} % (95 % interval ")
    assert (
        "The classes differ in size: the balanced accuracy, the mean over classes, is "
        f"{words['plain8']} in plain8 and {words['resnet8']} in resnet8."
    ) in result.summary
    drawn = result.figures[0].draw()
    lines = {line.get_label(): line for axis in drawn.axes for line in axis.lines}
    frames = [balanced_by_epoch(run) for run in experiment.of_network("plain8")]
    mean = sum(frame.balanced.to_numpy() for frame in frames) / 2
    assert lines["plain8, balanced"].get_ydata() == pytest.approx(mean)
    (meaning,) = [
        finding.meaning
        for finding in DIFFERENCE.run(experiment).findings
        if finding.key.startswith("higher-accuracy")
    ]
    assert f"resnet8 has {words['resnet8']} and plain8 {words['plain8']}." in meaning


def test_the_interval_of_one_large_class_is_mostly_that_of_the_small_ones(build):
    run = planned(build, keep=4).runs[0]
    last = run.predictions.query("epoch == 3")
    ends = []
    for _, rows in last.groupby("target"):
        right = int((rows.target == rows.prediction).sum())
        ends.append((right / len(rows), *wilson_interval(right, len(rows))))
    share, low, _ = np.array(ends).T
    found = balanced_by_epoch(run).iloc[-1]
    assert found.balanced_low == pytest.approx(
        share.mean() - np.sqrt(((share - low) ** 2).sum()) / 3
    )
