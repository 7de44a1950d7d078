"""Reads the options, images and epochs of an experiment that is to be resumed, and checks them."""

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from gradflow.errors import ConfigurationError, DataError, RunError
from gradflow.runs.format.description import read_description
from gradflow.runs.format.files import EXPERIMENT_FILE
from gradflow.runs.format.limits import require_valid_path
from gradflow.runs.reading.run import Run
from gradflow.training.configuration import Configuration
from gradflow.training.job import Job
from gradflow.training.loop import EpochSummary

# Options that may change when an experiment is resumed: the device, how many networks train at
# the same time, where else the numbers go, and the place of the images and how they are read. That
# they are the same images is checked.
CHANGEABLE_OPTIONS = (
    "device",
    "processes",
    "data",
    "layout",
    "columns",
    "on_bad_data",
    "sinks",
    "sink_quantities",
    "sink_every",
)
# Columns of the table epochs that always have values. Losses may be nan, which looks like a missing
# value.
_NEVER_MISSING = ("epoch", "val_accuracy", "seconds")
# Columns that runs of older versions lack.
_ADDED_LATER = ("val_balanced_accuracy",)


def recorded_configuration(folder: Path, given: Configuration) -> Configuration:
    """The recorded options of the experiment in `folder`, with device and data of `given` if set.

    Raises:
        RunError: The folder holds no experiment of `train_and_trace`.
        ConfigurationError: `given` sets any other option.
    """
    default = Configuration()
    changed = [
        field.name
        for field in fields(Configuration)
        if getattr(given, field.name) != getattr(default, field.name)
    ]
    refused = [name for name in changed if name not in CHANGEABLE_OPTIONS]
    if refused:
        raise ConfigurationError(
            f"--resume uses the options recorded in {folder}: leave out "
            f"--{refused[0].replace('_', '-')}, or start a new experiment"
        )
    require_valid_path(folder)
    if not (folder / EXPERIMENT_FILE).exists() and (folder.parent / EXPERIMENT_FILE).exists():
        raise RunError(
            f"{folder} is one run of an experiment: resume the experiment, {folder.parent}"
        )
    recorded = read_description(folder, EXPERIMENT_FILE).get("configuration")
    if not isinstance(recorded, dict):
        raise RunError(f"{folder} was not made by train_and_trace: it records no configuration")
    options = Configuration.from_json(recorded)
    kept = {name: getattr(given, name) for name in CHANGEABLE_OPTIONS if name in changed}
    return replace(options, **kept, out=folder)


def require_same_images(job: Job, run: Run) -> None:
    """Check that the images of `job` and their split are those that `run` was trained on.

    Raises `DataError` if they are not.
    """
    recorded = run.images
    if recorded.empty:
        return  # interrupted before its images were recorded
    now = pd.DataFrame(job.image_columns())
    columns = ["fingerprint", "label", "subset"]
    same = len(now) == len(recorded) and all(
        now[name].astype("object").tolist() == recorded[name].astype("object").tolist()
        for name in columns
    )
    if not same:
        raise DataError(
            f"the images in {job.configuration.data} are not those that {run.folder} was trained "
            "on: restore the old images, or start a new experiment"
        )


def read_summaries(run: Run) -> list[EpochSummary]:
    """The summaries of the recorded epochs of `run`.

    Raises `RunError` if there are none, or if `train_and_trace` did not write them.
    """
    best = -math.inf
    summaries = []
    names = [field.name for field in fields(EpochSummary) if field.name != "new_best"]
    epochs = run.epochs
    epochs = epochs.assign(**{name: None for name in _ADDED_LATER if name not in epochs})
    if epochs.empty or not all(_holds_numbers(epochs, name) for name in names):
        raise RunError(
            f"the table epochs of {run.folder} was not written by train_and_trace: "
            "start a new experiment"
        )
    for row in epochs.sort_values("epoch").to_dict("records"):
        values: dict[str, Any] = {name: None if pd.isna(row[name]) else row[name] for name in names}
        new_best = row["val_accuracy"] > best
        best = max(best, row["val_accuracy"])
        summaries.append(EpochSummary(**values, new_best=new_best))
    return summaries


def _holds_numbers(epochs: pd.DataFrame, name: str) -> bool:
    """Whether the column `name` holds numbers, and has missing values only if it may."""
    if name not in epochs:
        return False
    missing = epochs[name].isna()
    if name in _NEVER_MISSING:
        return pd.api.types.is_numeric_dtype(epochs[name]) and not missing.any()
    return pd.api.types.is_numeric_dtype(epochs[name]) or bool(missing.all())
