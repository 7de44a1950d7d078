"""Runs and experiments as cards for notebooks: what they are, and a picture of their records."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gradflow.errors import GradflowError
from gradflow.notebooks import html, pictures
from gradflow.runs.format.manifest import read_manifest
from gradflow.runs.format.parts import parts_of

if TYPE_CHECKING:
    from gradflow.runs.reading.run import Experiment, Run

# In bytes on the disk: a card is shown at once, and larger tables take seconds to read.
_LARGEST_READ = 30_000_000
_MOST_ROWS, _MOST_COLUMNS, _MOST_RUNS = 40, 80, 12
# The first of these that all runs have is drawn; the last letters say what is better.
_PREFERRED = ("val_accuracy", "validation_accuracy", "val_loss", "validation_loss", "train_loss")


def run_card(run: "Run") -> str:
    """A card of `run`: its facts, its last epoch, and its gradients by layer and time.

    Never raises an error for what the run's folder holds: the card says what cannot be read.
    """
    # A copy, so that showing a run that still trains does not keep its tables of now.
    run = replace(run, _tables=dict(run._tables))
    try:
        epochs = run.epochs
        parts = (
            html.facts({**_facts(run), "": _counted(len(epochs), "epoch")}),
            _gradients(run),
            html.facts(_last_epoch(epochs)),
        )
    except GradflowError as error:
        parts = (html.facts(_facts(run)), html.text(str(error)), "")
    return html.card(f"Run {run.name}", *parts, html.text(f"{run.folder}", quiet=True))


def experiment_card(experiment: "Experiment") -> str:
    """A card of `experiment`: a table of its runs, and a curve of each.

    Never raises an error for what its folder holds: the card says what cannot be read.
    """
    runs = [replace(run, _tables=dict(run._tables)) for run in experiment.runs]
    place = {name: index for index, name in enumerate(experiment.networks)}
    colours = [pictures.COLOURS[place[run.network] % len(pictures.COLOURS)] for run in runs]
    epochs = [_readable_epochs(run) for run in runs]
    drawn, chart = _curves(runs, epochs, colours)
    rows = [
        _row(run, colour, one, drawn)
        for run, colour, one in zip(runs, colours, epochs, strict=True)
    ]
    more = len(rows) - _MOST_RUNS
    columns = ("", "run", "network", "seed", "status", "epochs", drawn and f"last {drawn}")
    return html.card(
        f"Experiment {experiment.folder.resolve().name}: {_counted(len(runs), 'run')}",
        chart,
        html.text(f"{drawn} by epoch" if chart else "", quiet=True),
        html.table(columns, rows[:_MOST_RUNS]),
        html.text(f"and {_counted(more, 'more run')}" if more > 0 else "", quiet=True),
    )


def _row(run: "Run", colour: str, epochs: pd.DataFrame | None, drawn: str) -> tuple[object, ...]:
    known = epochs is not None and drawn in epochs and len(epochs)
    last = _number(epochs[drawn].iloc[-1]) if epochs is not None and known else ""
    count = "damaged" if epochs is None else len(epochs)
    key = html.Raw(pictures.dot(colour))
    return key, run.name, run.network, _seed(run), _status(run), count, last


def _facts(run: "Run") -> dict[str, object]:
    return {"network": run.network, "seed": _seed(run), "status": _status(run)}


def _seed(run: "Run") -> object:
    return "" if run.seed is None else run.seed


def _status(run: "Run") -> str:
    return str(run.description.get("status", ""))


def _last_epoch(epochs: pd.DataFrame) -> dict[str, object]:
    """The scalars of the last epoch, at most six."""
    numbers = epochs.select_dtypes("number").drop(columns=["epoch", "step"], errors="ignore")
    last = {} if numbers.empty else numbers.iloc[-1].dropna().to_dict()
    return {str(name): _number(value) for name, value in list(last.items())[:6]}


def _gradients(run: "Run") -> str:
    manifest = read_manifest(run.folder)
    files = [part.path for part in parts_of(manifest, "gradients")]
    if sum(path.stat().st_size for path in files if path.exists()) > _LARGEST_READ:
        return html.text("The gradients are too many to be drawn here: see the report.", quiet=True)
    frame = run.gradients
    if frame.empty:
        return html.text("No gradients of layers were recorded.", quiet=True)
    by_layer = frame.pivot_table("norm", "layer", "step", "median", dropna=False)
    order = [name for name in dict.fromkeys(run.layers["layer"]) if name in by_layer.index]
    by_layer = by_layer.loc[order or list(by_layer.index)]
    values = _binned(_binned(by_layer.to_numpy(dtype=float), _MOST_ROWS).T, _MOST_COLUMNS).T
    return pictures.heat_map(
        [[float(one) for one in row] for row in values],
        (str(by_layer.index[0]), str(by_layer.index[-1])),
        (f"step {by_layer.columns[0]}", f"step {by_layer.columns[-1]}"),
        "norm of the gradient, layer by step",
    )


def _binned(
    values: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]", most: int
) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    """`values`, shape [rows, columns], with at most `most` rows: medians of neighbouring ones."""
    if len(values) <= most:
        return values
    groups = np.array_split(values, most)
    kept = [np.ma.median(np.ma.masked_invalid(group), axis=0).filled(np.nan) for group in groups]
    return np.stack(kept)


def _readable_epochs(run: "Run") -> pd.DataFrame | None:
    """The epochs of `run`; None if they cannot be read."""
    try:
        return run.epochs
    except GradflowError:
        return None


def _curves(
    runs: "Sequence[Run]", epochs: Sequence[pd.DataFrame | None], colours: Sequence[str]
) -> tuple[str, str]:
    """The scalar that is drawn, and its curves; empty if no run has one."""
    frames = [pd.DataFrame() if one is None else one for one in epochs]
    scalars = [name for one in frames for name in one.select_dtypes("number").columns]
    known = [name for name in (*_PREFERRED, *scalars) if name in scalars]
    drawn = next((name for name in known if name not in ("epoch", "step")), "")
    if not drawn:
        return "", ""
    # Two runs may have the same name.
    points = {
        f"{run.name} ({place})": _points(one, drawn)
        for place, (run, one) in enumerate(zip(runs, frames, strict=True), start=1)
    }
    return drawn, pictures.curves(points, colours)


def _points(epochs: pd.DataFrame, drawn: str) -> list[tuple[float, float]]:
    if drawn not in epochs:
        return []
    # What is a number in one run may be a text in another.
    numbers = epochs[["epoch", drawn]].apply(pd.to_numeric, errors="coerce").astype(float)
    return [(float(x), float(y)) for x, y in numbers.to_numpy()]


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float | np.number) else str(value)
