"""Predictions for the validation images: which are correct, and the accuracy by epoch."""

import pandas as pd

from analyses.reading.once import once_per_run
from analyses.statistics.proportions import wilson_interval
from gradflow.runs.reading.run import Run


@once_per_run
def duplicate_images(run: Run) -> pd.Index:
    """The validation images of `run` that are byte-identical to an earlier validation image."""
    images = run.images
    if not len(images):
        return pd.Index([])
    # Old runs have no fingerprints: then no image is known to be a duplicate.
    validation = images[(images["subset"] == "validation") & images["fingerprint"].notna()]
    return pd.Index(validation.loc[validation["fingerprint"].duplicated(), "image"])


def predictions_of(run: Run, table: str = "predictions") -> pd.DataFrame:
    """The rows of `table` without duplicate validation images.

    A duplicate is not a new observation: counted again, it would make intervals too narrow.
    """
    rows = run.table(table)
    duplicates = duplicate_images(run)
    return rows[~rows["image"].isin(duplicates)] if len(duplicates) else rows.copy(deep=False)


def duplicates_caveat(runs: list[Run]) -> tuple[str, ...]:
    """The caveat that duplicate validation images were left out; empty if there are none."""
    found = max((len(duplicate_images(run)) for run in runs), default=0)
    if not found:
        return ()
    return (
        f"{found} of the validation images are byte-identical copies of others; here each distinct "
        "image counts once, so accuracies differ a little from those of the training log.",
    )


def correctness(table: pd.DataFrame) -> pd.DataFrame:
    """Was each image classified correctly? Booleans, one row per epoch, one column per image.

    Images without a prediction in every epoch are left out, so that all epochs have the same
    images.
    """
    right = (table["target"] == table["prediction"]).astype(float)
    keys = pd.MultiIndex.from_frame(table[["epoch", "image"]])
    wide = pd.Series(right.to_numpy(), index=keys).unstack("image")
    return wide.dropna(axis=1).astype(bool).sort_index()


def right_images(run: Run, table: str = "predictions") -> pd.DataFrame:
    """`correctness` of the distinct images in `table` of `run`; nobody may change it."""
    return _right_images(run, table)


@once_per_run
def _right_images(run: Run, table: str) -> pd.DataFrame:
    return correctness(predictions_of(run, table))


def accuracy_by_epoch(right: pd.DataFrame) -> pd.DataFrame:
    """Accuracy with its Wilson 95 % interval: columns epoch, accuracy, low, high, images."""
    images = right.shape[1]
    counts = right.sum(axis=1)
    intervals = [wilson_interval(int(count), images) for count in counts]
    return pd.DataFrame(
        {
            "epoch": right.index.to_numpy(),
            "accuracy": (counts / max(images, 1)).to_numpy(dtype=float),
            "low": [low for low, _ in intervals],
            "high": [high for _, high in intervals],
            "images": images,
        }
    )
