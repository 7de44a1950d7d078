"""The rows of the explorer: layers, their weights, and residual additions."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from gradflow.runs.reading.run import Run

# A heat map with more rows would need more pixels than a screen has.
MOST_LAYERS = 200
# Roles that are left out first if there are more layers; the other roles hold weights.
_LEFT_OUT_FIRST = ("other", "activation", "normalization", "block", "projection")
_TEXT_COLUMNS = ("layer", "type", "role", "shape")


def layer_rows(run: Run) -> pd.DataFrame:
    """One row per layer, in order of execution, indexed by the layer's name.

    Columns: layer, type, role and shape as in the schema; depth, missing if unknown; and position,
    the depth plus a fraction that separates and orders layers of the same depth.
    """
    layers = run.layers
    if layers.empty:
        layers = _layers_from_values(run)
    rows = layers[[*_TEXT_COLUMNS, "depth"]].drop_duplicates("layer").reset_index(drop=True)
    depth = rows["depth"].astype(float)
    rows["depth"] = depth
    # A layer before the first one with a depth, e.g. the input of an embedding, has depth 0.
    level = depth.ffill().fillna(0.0)
    place = rows.groupby(level).cumcount()
    rows["position"] = level + place / level.map(level.value_counts())
    return rows.set_index("layer", drop=False)


def shown_layers(rows: pd.DataFrame, most: int = MOST_LAYERS) -> pd.DataFrame:
    """At most `most` layers: layers without weights are left out first, then evenly spaced ones."""
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
    """One row for each of `layers` with parameters, indexed by its main parameter.

    The main parameter is the one called weight, otherwise the layer's first. Modules that are not
    among the layers also get a row, after all others.
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
    # A stable sort: the parameter recorded first stays first.
    chosen = chosen.sort_values("other", kind="stable").drop_duplicates("layer")
    return _rows_of_owners(chosen.set_index("parameter")["layer"], layers)


def junction_rows(run: Run, layers: pd.DataFrame) -> pd.DataFrame:
    """One row per residual addition, indexed by its name, with the columns of its layer."""
    names = list(run.junctions["layer"].drop_duplicates())
    # `name+2` is the second addition of the layer `name`; its second call, `name#2`, is a layer.
    rows = _rows_of_owners(
        pd.Series([re.sub(r"\+\d+$", "", name) for name in names], names), layers
    )
    rows["layer"] = rows.index
    return rows


def _rows_of_owners(owners: pd.Series, layers: pd.DataFrame) -> pd.DataFrame:
    """The rows of `layers` named in `owners`, with the index of `owners`, ordered by position."""
    rows = layers.reindex(owners.to_numpy()).set_axis(owners.index)
    rows["layer"] = owners.replace("", "(model)")
    last = layers["position"].max() if len(layers) else 0.0
    unknown = rows["position"].isna()
    rows.loc[unknown, "position"] = last + 1 + np.arange(unknown.sum())
    texts = [name for name in _TEXT_COLUMNS if name != "layer"]
    rows[texts] = rows[texts].fillna("")
    return rows.sort_values("position", kind="stable")


def _layers_from_values(run: Run) -> pd.DataFrame:
    """The layers of a run that has recorded values but no table of layers."""
    names: Sequence[str] = list(run.activations["layer"].drop_duplicates())
    if not names:
        # Gradients arrive from the output to the input.
        names = list(run.gradients["layer"].drop_duplicates())[::-1]
    unknown = {name: "" for name in _TEXT_COLUMNS if name != "layer"}
    depth = np.arange(1.0, len(names) + 1)
    return pd.DataFrame(
        {"layer": names, **unknown, "depth": depth}, columns=[*_TEXT_COLUMNS, "depth"]
    )
