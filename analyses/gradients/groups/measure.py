"""Reduces the tables `steps` and `groups` to curves over steps and to medians."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.reading.options import rounds_of_turns, turns_of_updates
from gradflow.runs.reading.run import Run

ROUNDING = 1e-3  # a factor this close to 1 is that of a gradient that nothing changed
MAX_POINTS = 120  # of a curve: more steps are gathered
NORMS = ["backward_gradient_norm", "gradient_norm"]
CURVES = ["gradient_norm", "update_to_weight"]


@dataclass(frozen=True)
class NetworkGroups:
    """What the optimizers of one network received, over all its seeds.

    Fields:
        network: its name.
        steps: number of recorded steps with a factor.
        changed: share of these in which something changed the gradient; None without such steps.
        factor: median of received over left.
        smallest: the smallest such factor.
        curve: columns step, backward_gradient_norm, gradient_norm: medians over neighbouring steps.
        groups: one row a group: group, parameters, layers, medians of the other columns of the
            table, share (of the squared norm of the whole gradient) and the sum of nonfinite.
        by_group: columns group, step, gradient_norm, update_to_weight, as `curve`.
    """

    network: str
    steps: int
    changed: float | None
    factor: float | None
    smallest: float | None
    curve: pd.DataFrame
    groups: pd.DataFrame
    by_group: pd.DataFrame

    @property
    def was_changed(self) -> bool:
        """Whether something changed a gradient between backward and optimizer."""
        return bool(self.changed)


def network_groups(network: str, runs: list[Run]) -> NetworkGroups:
    """Reduce the runs of one network; steps that a scaler skipped are left out."""
    steps = pd.concat([_updating(run, run.steps) for run in runs])
    groups = pd.concat([_updating(run, _with_updates(run)) for run in runs])
    factors = _finite(steps["clipping_factor"])
    known = len(factors) > 0
    return NetworkGroups(
        network=network,
        steps=len(factors),
        changed=float((abs(factors - 1) > ROUNDING).mean()) if known else None,
        factor=float(factors.median()) if known else None,
        smallest=float(factors.min()) if known else None,
        curve=_curve(steps, NORMS),
        groups=_medians(groups, steps),
        by_group=_by_group(groups),
    )


def _with_updates(run: Run) -> pd.DataFrame:
    """The table `groups`; if updates have turns, with the ratio of each round in its last step.

    It is missing for a group of which a parameter had no update in a round.
    """
    groups, members = run.groups, run.description.get("groups")
    if turns_of_updates(run) == 1 or groups.empty or not isinstance(members, dict):
        return groups
    rows = run.parameters[["step", "parameter", "update_norm", "weight_norm"]]
    rows = rows.assign(round=rounds_of_turns(run)).dropna(subset=["round"])
    ends = rows.groupby("round")["step"].max()
    squares = rows[["update_norm", "weight_norm"]].astype(float) ** 2
    means = squares.groupby([rows["round"], rows["parameter"]]).mean()
    names = means.index.get_level_values("parameter")
    groups = groups.assign(update_to_weight=np.nan)
    for group, one in members.items():
        own = means[names.isin(one["parameters"])].groupby(level="round")
        # A sum with a missing one is missing.
        totals = own.agg(lambda squares: squares.sum(skipna=False))
        ratios = np.sqrt(totals["update_norm"] / totals["weight_norm"])
        found = groups["step"].map(pd.Series(ratios.to_numpy(), index=ends[ratios.index]))
        groups["update_to_weight"] = found.where(
            groups["group"] == group, groups["update_to_weight"]
        )
    return groups


def _updating(run: Run, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `frame` at steps that were not skipped."""
    steps = run.steps
    skipped = steps.loc[steps["skipped"].fillna(False).astype(bool), "step"]
    return frame[~frame["step"].isin(skipped)]


def _finite(values: pd.Series) -> pd.Series:
    numbers = values.astype(float)
    return numbers[np.isfinite(numbers)]


def _curve(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Medians over seeds and neighbouring steps, in at most `MAX_POINTS` places."""
    rows = frame[["step", *columns]].astype(float).replace([np.inf, -np.inf], np.nan)
    rows = rows.dropna(subset=columns, how="all")
    if rows.empty:
        return rows
    places = np.unique(rows["step"])
    bins = np.searchsorted(places, rows["step"]) * MAX_POINTS // max(len(places), MAX_POINTS)
    return rows.groupby(bins).median().reset_index(drop=True)


def _by_group(groups: pd.DataFrame) -> pd.DataFrame:
    curves = [
        _curve(rows, CURVES).assign(group=name)
        for name, rows in groups.groupby("group", sort=False)
    ]
    return pd.concat(curves) if curves else pd.DataFrame(columns=["step", *CURVES, "group"])


def _medians(groups: pd.DataFrame, steps: pd.DataFrame) -> pd.DataFrame:
    """One row a group, in the order in which they were given."""
    whole = steps.groupby("step")["gradient_norm"].median()
    rows = []
    for name, one in groups.groupby("group", sort=False):
        shares = (one["gradient_norm"] / one["step"].map(whole)).astype(float) ** 2
        rows.append(
            {
                "group": name,
                "parameters": int(one["parameters"].max()),
                "layers": int(one["layers"].max()),
                "gradient_norm": _median(one["gradient_norm"]),
                "share": _median(shares),
                "clipping_factor": _median(one["clipping_factor"]),
                "update_to_weight": _median(one["update_to_weight"]),
                "nonfinite": int(one["nonfinite"].fillna(0).sum()),
            }
        )
    return pd.DataFrame(rows)


def _median(values: pd.Series) -> float | None:
    known = _finite(values)
    return float(known.median()) if len(known) else None
