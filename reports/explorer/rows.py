"""What the rows of the explorer stand for: layers, their weights, residual additions."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from gradflow.runs.reading.run import Run

# Beyond this many rows a heat map shows no more than a screen has lines to draw them with.
MOST_LAYERS = 200
# What goes first where there are more; layers of other roles hold weights and stay longest.
_LEFT_OUT_FIRST = ("other", "activation", "normalization", "block", "projection")
_TEXT_COLUMNS = ("layer", "type", "role", "shape")


def layer_rows(run: Run) -> pd.DataFrame:
    """One row a layer, in order of execution, indexed by its name.

    Columns: layer, type, role, shape, as the schema has them; depth, missing where unknown; and
    position, the depth with a fraction that keeps layers of one depth apart, in order.
    """
    layers = run.layers
    if layers.empty:
        layers = _layers_from_values(run)
    rows = layers[[*_TEXT_COLUMNS, "depth"]].drop_duplicates("layer").reset_index(drop=True)
    depth = rows["depth"].astype(float)
    rows["depth"] = depth
    # A layer before the first one that counts, an embedding's input say, stands at depth 0.
    level = depth.ffill().fillna(0.0)
    place = rows.groupby(level).cumcount()
    rows["position"] = level + place / level.map(level.value_counts())
    return rows.set_index("layer", drop=False)


def shown_layers(rows: pd.DataFrame, most: int = MOST_LAYERS) -> pd.DataFrame:
    """At most `most` of the layers: those that hold weights first, then evenly spaced ones."""
    kept = rows
    for role in _LEFT_OUT_FIRST:
        fewer = kept[kept["role"] != role]
        if len(kept) <= most or fewer.empty:
            break
        kept = fewer
    if len(kept) <= most:
        return kept
    return kept.iloc[np.linspace(0, len(kept) - 1, most).round().astype(int)]


def parameter_rows(run: Run, layers: pd.DataFrame) -> pd.DataFrame:
    """One row for each of `layers` with parameters, indexed by the one that stands for it.

    That is the one called weight, or else the layer's first; parameters of modules that are not
    among the layers have a row as well, after all others.
    """
    names = list(run.parameters["parameter"].drop_duplicates())
    parts = [name.rpartition(".") for name in names]
    chosen = pd.DataFrame(
        {
            "parameter": names,
            "layer": [module for module, _, _ in parts],
            "other": [own != "weight" for _, _, own in parts],
        }
    )
    # Stable: among those of the same kind the first recorded one stays first.
    chosen = chosen.sort_values("other", kind="stable").drop_duplicates("layer")
    return _rows_of_owners(chosen.set_index("parameter")["layer"], layers)


def junction_rows(run: Run, layers: pd.DataFrame) -> pd.DataFrame:
    """One row a residual addition, indexed by its name, described by the layer that it names."""
    names = list(run.junctions["layer"].drop_duplicates())
    # `name+2` is the second addition of the layer `name`; its second call, `name#2`, is a layer.
    rows = _rows_of_owners(
        pd.Series([re.sub(r"\+\d+$", "", name) for name in names], names), layers
    )
    rows["layer"] = rows.index
    return rows


def _rows_of_owners(owners: pd.Series, layers: pd.DataFrame) -> pd.DataFrame:
    """The rows of `layers` that `owners` names, with its index, in the order of `layers`."""
    rows = layers.reindex(owners.to_numpy()).set_axis(owners.index)
    rows["layer"] = owners.replace("", "(model)")
    last = layers["position"].max() if len(layers) else 0.0
    unknown = rows["position"].isna()
    rows.loc[unknown, "position"] = last + 1 + np.arange(unknown.sum())
    texts = [name for name in _TEXT_COLUMNS if name != "layer"]
    rows[texts] = rows[texts].fillna("")
    return rows.sort_values("position", kind="stable")


def _layers_from_values(run: Run) -> pd.DataFrame:
    """The layers of a run that recorded values but no table of layers."""
    names: Sequence[str] = list(run.activations["layer"].drop_duplicates())
    if not names:
        # Gradients arrive from the output to the input.
        names = list(run.gradients["layer"].drop_duplicates())[::-1]
    unknown = {name: "" for name in _TEXT_COLUMNS if name != "layer"}
    depth = np.arange(1.0, len(names) + 1)
    return pd.DataFrame(
        {"layer": names, **unknown, "depth": depth}, columns=[*_TEXT_COLUMNS, "depth"]
    )
