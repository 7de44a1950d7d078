"""Whether the validation loss rises while the training loss falls."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analyses.health.condition import NotAsked
from analyses.health.conditions.losses.validation import overfitting_answer
from analyses.result import Verdict


def epochs_with(**by_epoch):
    """What the answer reads of a run: its epochs, each of two steps."""
    frame = pd.DataFrame({name: np.asarray(values, float) for name, values in by_epoch.items()})
    frame["epoch"] = np.arange(1, len(frame) + 1)
    frame["step"] = 2 * frame["epoch"] - 1
    return SimpleNamespace(epochs=frame)


FALLING = np.exp(-0.2 * np.arange(14))
TURNING = np.concatenate([np.linspace(1, 0.5, 5), np.linspace(0.52, 0.9, 9)])


def test_a_loss_that_turns_is_overfitting_from_its_best_epoch_on():
    found = overfitting_answer(epochs_with(train_loss=FALLING, val_loss=TURNING), 1.1)
    assert found.verdict is Verdict.SUPPORTED
    assert found.value == pytest.approx(np.median(TURNING[-3:]) / 0.5)
    assert found.since == 9  # the last step of the fifth epoch
    assert "least in epoch 5" in found.said


@pytest.mark.parametrize(
    ("training", "validation"),
    [
        (FALLING, FALLING + 0.1),  # both fall
        (FALLING, np.full(14, 0.7)),  # neither
        (TURNING, TURNING),  # both rise: the training diverges
    ],
)
def test_what_does_not_part_is_not_overfitting(training, validation):
    found = overfitting_answer(epochs_with(train_loss=training, val_loss=validation), 1.1)
    assert found.verdict is Verdict.CONTRADICTED


def test_an_accuracy_that_still_rises_tells_confidence_from_error():
    accuracy = np.linspace(0.5, 0.9, 14)
    run = epochs_with(train_loss=FALLING, val_loss=TURNING, val_accuracy=accuracy)
    found = overfitting_answer(run, 1.1)
    assert found.verdict is Verdict.CONTRADICTED
    assert "more confident" in found.note


def test_re_estimated_statistics_are_preferred():
    run = epochs_with(train_loss=FALLING, val_loss=TURNING, recalibrated_val_loss=FALLING)
    assert overfitting_answer(run, 1.1).verdict is Verdict.CONTRADICTED


def test_noise_about_a_constant_is_rarely_called_overfitting():
    """The test is one of 2.5 %; that the best epoch was chosen is not to make it more."""
    draw, alarms = np.random.default_rng(0), 0
    for _ in range(200):
        validation = 1 + 0.2 * draw.standard_normal(14)
        run = epochs_with(train_loss=FALLING, val_loss=np.abs(validation))
        alarms += overfitting_answer(run, 1.1).verdict is Verdict.SUPPORTED
    assert alarms <= stats.binom.ppf(0.999, 200, 0.025)


def test_too_few_epochs_or_no_losses_are_not_asked():
    few = overfitting_answer(epochs_with(train_loss=[1.0], val_loss=[1.0]), 1.1)
    none = overfitting_answer(epochs_with(accuracy=[1.0]), 1.1)
    assert isinstance(few, NotAsked)
    assert few.reason == "7 epochs with both losses are needed, and there are 1"
    assert isinstance(none, NotAsked)
