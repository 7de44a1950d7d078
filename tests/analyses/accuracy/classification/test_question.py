"""Confusion and report by class against counts made by hand."""

import numpy as np
import pandas as pd
import pytest

from analyses.accuracy.classification.measure import best_epoch, confusion
from analyses.accuracy.classification.question import ANALYSIS, report_by_class
from analyses.registry import NotApplicableError
from analyses.result import Verdict


def test_the_reference_matrix_has_its_precision_and_recall():
    matrix = np.array([[3, 1], [2, 4]])
    rows = [(t, p) for (t, p), count in np.ndenumerate(matrix) for _ in range(count)]
    predictions = pd.DataFrame(rows, columns=["target", "prediction"])
    assert (confusion(predictions, ["a", "b"]) == matrix).all()
    report = report_by_class(predictions, ["a", "b"]).set_index("class")
    assert report.loc["a", ["precision", "recall", "support"]].tolist() == [0.6, 0.75, 4]
    assert report.loc["b", "F1"] == pytest.approx(2 * 0.8 * (4 / 6) / (0.8 + 4 / 6))


def test_numbers_by_class_are_those_of_scikit_learn():
    from sklearn.metrics import classification_report, confusion_matrix  # noqa: PLC0415 - slow

    classes = [f"class {number}" for number in range(6)]
    # Class 4 never occurs, class 5 is never predicted, and 6 is no class.
    targets = np.random.default_rng(0).choice([0, 1, 2, 3, 5, 6], 200)
    taken = np.random.default_rng(1).choice([0, 1, 2, 3, 4, 6], 200)
    predictions = pd.DataFrame({"target": targets, "prediction": taken})
    expected = confusion_matrix(targets, taken, labels=range(6))
    assert (confusion(predictions, classes) == expected).all()
    theirs = classification_report(
        targets, taken, labels=range(6), target_names=classes, output_dict=True, zero_division=0
    )
    ours = report_by_class(predictions, classes).set_index("class")
    assert ours["support"].dtype == int
    for row, name in zip(ours.index, [*classes, "macro avg"], strict=True):
        found = ours.loc[row, ["precision", "recall", "F1", "support"]].tolist()
        assert found == pytest.approx(list(theirs[name].values()), rel=1e-15), name


def test_the_first_epoch_of_highest_accuracy_is_taken(build):
    experiment = build.experiment(build.plan(right=build.right_of([0.2, 0.6, 0.6])))
    best = best_epoch(experiment.runs[0])
    assert (best.epoch, best.accuracy) == (2, pytest.approx(0.6))


def test_a_good_network_finds_every_class(build):
    result = ANALYSIS.run(build.experiment(build.plan(right=build.right_of([0.2, 0.9, 0.9]))))
    (finding,) = result.findings
    assert finding.verdict is Verdict.SUPPORTED
    assert result.tables[1].frame["class"].iloc[-1] == "mean of classes"
    result.figures[0].draw()


def test_a_class_never_predicted_counts_against_it(build):
    right = np.ones((3, 60), dtype=bool)
    right[:, 0::5] = False  # class 0 is taken for class 1, and nothing is taken for class 0
    (finding,) = ANALYSIS.run(build.experiment(build.plan(right=right))).findings
    assert finding.verdict is Verdict.CONTRADICTED
    assert "no image is ever classified as class bakso" in finding.meaning


def test_unknown_class_names_become_indices(build):
    plan = build.plan(right=build.right_of([0.5, 0.5, 0.5]), classes=[])
    result = ANALYSIS.run(build.experiment(plan))
    assert list(result.tables[1].frame["class"])[:2] == ["0", "1"]


def test_without_predictions_it_does_not_apply(build):
    with pytest.raises(NotApplicableError, match="predictions"):
        ANALYSIS.run(build.experiment(build.plan()))
