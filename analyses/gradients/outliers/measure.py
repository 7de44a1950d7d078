"""Values of each layer and parameter of a network, by group, and those far from their group."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.reading.layer_groups import groups_of
from analyses.reading.options import rows_of_whole_rounds, turns_of_updates
from analyses.statistics.fences import far_out
from gradflow.runs.reading.run import Run

FEWEST_MEMBERS = 8  # of a group in which outliers are looked for


@dataclass(frozen=True)
class Compared:
    """A recorded quantity that is compared within groups.

    Fields:
        table, column: where it is recorded.
        name: in words.
        of: what has it, "layer" or "parameter"; also the column of the table that names it.
    """

    table: str
    column: str
    name: str
    of: str

    @property
    def key(self) -> str:
        """Letters and hyphens, unique among all that is compared."""
        return f"{self.table}-{self.column.replace('_', '-')}"


COMPARED = (
    Compared("gradients", "rms", "gradient at the output (rms)", "layer"),
    Compared("activations", "rms", "output (rms)", "layer"),
    Compared("parameters", "weight_norm", "weight (norm)", "parameter"),
    Compared("parameters", "gradient_norm", "gradient (norm)", "parameter"),
    Compared("parameters", "update_to_weight", "update / weight", "parameter"),
)


@dataclass(frozen=True)
class GroupedValues:
    """One quantity of all layers or parameters of one network, at its last recorded epoch.

    Fields:
        network: its name.
        quantity: what was compared.
        epoch: the epoch, counted from 1.
        values: columns name, group, value, median (of the group), times (value / median), outlier;
            in order of execution.
        groups: columns group, members, median, lowest, highest, outliers; in order of execution.
    """

    network: str
    quantity: Compared
    epoch: int
    values: pd.DataFrame
    groups: pd.DataFrame

    @property
    def outliers(self) -> pd.DataFrame:
        """The rows of `values` that are outliers, those farthest from their group first."""
        found = self.values[self.values["outlier"]]
        order = np.log(found["times"]).abs().sort_values(ascending=False, kind="stable").index
        return found.loc[order]


def grouped_values(network: str, runs: list[Run], quantity: Compared) -> GroupedValues | None:
    """The values of `quantity` in the runs of one network; None if none was recorded.

    A value is the median over the recorded steps of the last epoch, and over seeds. Values that
    are not finite are left out. If parameters have turns, a value is the median over the rounds of
    turns that end in the last epoch in which one does: each parameter has as many turns in these.
    """
    frames = [
        frame[frame["epoch"] == frame["epoch"].max()]
        for run in runs
        if len(frame := _rows(run, quantity))
    ]
    if not frames:
        return None
    pooled = pd.concat(frames)
    numbers = pooled[quantity.column].astype(float).replace([np.inf, -np.inf], np.nan)
    medians = numbers.groupby(pooled[quantity.of], sort=False).median().dropna()
    if medians.empty:
        return None
    values = pd.DataFrame({"name": list(medians.index), "value": medians.to_numpy()})
    values = _in_order(values, runs[0], quantity)
    values["group"] = groups_of(list(values["name"]), list(values["kind"])).to_numpy()
    by_group = values.groupby("group", sort=False)["value"]
    values["median"] = by_group.transform("median")
    with np.errstate(divide="ignore", invalid="ignore"):
        values["times"] = values["value"] / values["median"]
    values["outlier"] = False
    for place in by_group.indices.values():
        if len(place) >= FEWEST_MEMBERS:
            values.loc[place, "outlier"] = far_out(values["value"].to_numpy()[place])
    groups = by_group.agg(members="size", median="median", lowest="min", highest="max")
    groups["outliers"] = values.groupby("group", sort=False)["outlier"].sum()
    return GroupedValues(
        network=network,
        quantity=quantity,
        epoch=int(pooled["epoch"].max()),
        values=values[["name", "group", "value", "median", "times", "outlier"]],
        groups=groups.reset_index(),
    )


def has_turns(run: Run, quantity: Compared) -> bool:
    """Whether a recorded step has the quantity of some parameters only."""
    of_updates = quantity.column == "update_to_weight" and turns_of_updates(run) > 1
    return of_updates or (quantity.of == "parameter" and "parameters_every" in run.description)


def _rows(run: Run, quantity: Compared) -> pd.DataFrame:
    return rows_of_whole_rounds(run) if has_turns(run, quantity) else run.table(quantity.table)


def _in_order(values: pd.DataFrame, run: Run, quantity: Compared) -> pd.DataFrame:
    """`values` in order of execution, with a column kind: type and shape of the layer."""
    layers = run.layers.drop_duplicates("layer").reset_index(drop=True)
    owners = values["name"]
    kinds = layers["type"].astype(str)
    if quantity.of == "parameter":
        owners = owners.str.rpartition(".")[0]
    else:
        kinds = kinds + " " + layers["shape"].astype(str)
    place = owners.map(pd.Series(layers.index, index=layers["layer"]))
    kind = owners.map(pd.Series(kinds.to_numpy(), index=layers["layer"])).fillna("")
    ordered = values.assign(kind=kind, place=place).sort_values("place", kind="stable")
    return ordered.reset_index(drop=True)
