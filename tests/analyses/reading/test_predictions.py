"""Each distinct validation image counts once."""

import pandas as pd

from analyses.reading.predictions import (
    correctness,
    duplicate_images,
    duplicates_caveat,
    predictions_of,
    right_images,
)


def test_images_missing_in_an_epoch_are_left_out():
    rows = [(1, 0, 1, 1), (1, 1, 1, 0), (2, 0, 1, 0)]
    table = pd.DataFrame(rows, columns=["epoch", "image", "target", "prediction"])
    right = correctness(table)
    assert list(right.columns) == [0]
    assert right[0].tolist() == [True, False]


def test_images_without_fingerprints_are_no_copies(build):
    (run,) = build.experiment(build.plan(right=build.right_of([0.5] * 3))).runs
    run._tables["images"] = run.images.assign(fingerprint=None)
    assert len(predictions_of(run)) == len(run.predictions)


def test_a_copy_of_a_validation_image_is_no_further_observation(build):
    right = build.right_of([0.5, 0.7], images=20)
    experiment = build.experiment(build.plan(images=20, right=right, epochs=2, copies=4))
    (run,) = experiment.runs
    assert sorted(set(predictions_of(run).image)) == list(range(16))
    assert len(run.predictions) == 40
    assert list(right_images(run).columns) == list(range(16))
    assert right_images(run) is right_images(run, "predictions")
    assert duplicates_caveat([run])[0].startswith("4 of the validation images are byte-identical")


def test_without_copies_there_is_nothing_to_say(build):
    right = build.right_of([0.5, 0.7], images=20)
    (run,) = build.experiment(build.plan(images=20, right=right, epochs=2)).runs
    assert len(predictions_of(run)) == 40
    assert duplicates_caveat([run]) == ()


def test_images_without_fingerprints_are_not_taken_for_copies(build):
    run = build.experiment(build.plan()).runs[0]
    run.images["fingerprint"] = float("nan")
    assert duplicate_images(run).empty
