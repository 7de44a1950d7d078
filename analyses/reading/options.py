"""The options of a run, and those in which two runs differ."""

from typing import Any

import numpy as np
import pandas as pd

from gradflow.runs.reading.run import Run

# Options that say where a run was written or which runs were made with it.
IGNORED_OPTIONS = ("out", "models", "seeds")
NOT_RECORDED = "not recorded"


def configuration_differences(first: Run, second: Run) -> pd.DataFrame:
    """The options that differ: columns option, first, second; values as text.

    Network, seed, device and versions come first, then the options of the configuration. Nested
    options are named by their path, e.g. optimizer.lr.
    """
    ours, theirs = options_of(first), options_of(second)
    rows = [
        {"option": name, "first": ours.get(name), "second": theirs.get(name)}
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name) != theirs.get(name)
    ]
    return pd.DataFrame(rows, columns=["option", "first", "second"]).fillna(NOT_RECORDED)


def options_of(run: Run) -> dict[str, str]:
    """All options that `run` recorded, as text, by name."""
    options = {
        "network": run.network,
        "seed": run.seed,
        "device": run.description.get("device"),
        "versions": run.description.get("versions"),
        "tracing": run.description.get("tracing"),
        **{name: value for name, value in run.configuration.items() if name not in IGNORED_OPTIONS},
    }
    return {name: str(value) for name, value in _flattened(options) if value is not None}


def _flattened(options: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, value in options.items():
        path = f"{prefix}{name}"
        flat += _flattened(value, f"{path}.") if isinstance(value, dict) else [(path, value)]
    return flat


def turns_of_updates(run: Run) -> int:
    """After how many recorded steps the update of a parameter is measured again (`Tracer`)."""
    given = (run.description.get(name) for name in ("updates_every", "parameters_every"))
    return max([1, *(one for one in given if isinstance(one, int))])


def rounds_of_turns(run: Run) -> pd.Series:
    """Which round of turns each row of the table `parameters` belongs to, counted from 0.

    In a round, as many recorded steps as there are turns, each parameter has its update measured.
    Missing for the rows of a last round that is not complete.
    """
    turns = turns_of_updates(run)
    # A turn of which no parameter is trained has no rows, and is a turn all the same.
    steps = np.union1d(run.steps["step"], run.parameters["step"])
    places = np.searchsorted(steps, run.parameters["step"])
    rounds = pd.Series(places // turns, index=run.parameters.index)
    return rounds.where(rounds < len(steps) // turns)


def rows_of_whole_rounds(run: Run) -> pd.DataFrame:
    """The table `parameters`; if updates have turns, with the rows of whole rounds alone.

    Each parameter then counts as often as any other. A round belongs to the epoch in which it ends:
    that is the column `epoch`. Whichever epoch has no end of a round has no rows. The column `time`
    is the round of a row; without turns, it is the step.
    """
    rows = run.parameters
    if turns_of_updates(run) == 1:
        return rows.assign(time=rows["step"])
    rows = rows.assign(time=rounds_of_turns(run)).dropna(subset=["time"])
    return rows.assign(epoch=rows.groupby("time")["epoch"].transform("max"))


def has_moving_objective(run: Run) -> bool:
    """Whether the training was declared as one whose loss need not fall (`Tracer(objective=)`)."""
    return run.description.get("objective") == "moving"
