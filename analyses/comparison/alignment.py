"""Aligns the layers of one run with the layers of another."""

from dataclasses import dataclass

import pandas as pd

from gradflow.runs.reading.run import Run

BY_NAME = "name"
BY_DEPTH = "role and depth"


@dataclass(frozen=True)
class Alignment:
    """The layers of two runs in pairs, and those without a partner.

    Fields:
        pairs: columns first, second (layer names), role, depth (in the first run), aligned_by.
        unmatched: columns run (first or second), layer, role, depth: layers without a partner.
    """

    pairs: pd.DataFrame
    unmatched: pd.DataFrame

    @property
    def partners(self) -> dict[str, str]:
        """The layer of the second run for each aligned layer of the first."""
        return dict(zip(self.pairs["first"], self.pairs["second"], strict=True))

    @property
    def depths(self) -> dict[str, float]:
        """The depth of each aligned layer, in the first run."""
        return dict(zip(self.pairs["first"], self.pairs["depth"].astype(float), strict=True))


def align_layers(first: Run, second: Run) -> Alignment:
    """Align layers of equal name and role, then the others by role, depth and order.

    If a run has no table of layers, layers with activations or gradients are aligned by name.
    """
    ours, theirs = _layers(first), _layers(second)
    named = ours.merge(theirs, on=["layer", "role"], suffixes=("", "_second"))
    pairs = pd.DataFrame(
        {
            "first": named["layer"],
            "second": named["layer"],
            "role": named["role"],
            "depth": named["depth"],
            "aligned_by": BY_NAME,
        }
    )
    left = ours[~ours["layer"].isin(pairs["first"])]
    right = theirs[~theirs["layer"].isin(pairs["second"])]
    by_depth = _by_depth(left).merge(
        _by_depth(right), on=["role", "depth", "place"], suffixes=("_first", "_second")
    )
    pairs = pd.concat(
        [
            pairs,
            by_depth.rename(columns={"layer_first": "first", "layer_second": "second"})
            .assign(aligned_by=BY_DEPTH)
            .reindex(columns=pairs.columns),
        ]
    ).sort_values("depth", kind="stable", ignore_index=True)
    unmatched = pd.concat(
        [
            layers[~layers["layer"].isin(pairs[which])].assign(run=which)
            for which, layers in (("first", left), ("second", right))
        ],
        ignore_index=True,
    )
    return Alignment(pairs, unmatched[["run", "layer", "role", "depth"]])


def _layers(run: Run) -> pd.DataFrame:
    if len(run.layers):
        return run.layers.drop_duplicates("layer")[["layer", "role", "depth"]]
    names = pd.concat([run.activations["layer"], run.gradients["layer"]]).drop_duplicates()
    return pd.DataFrame({"layer": names, "role": "unknown", "depth": range(1, len(names) + 1)})


def _by_depth(layers: pd.DataFrame) -> pd.DataFrame:
    """`layers` with a column place: the index of a layer among those of its role and depth."""
    return layers.dropna(subset="depth").assign(place=layers.groupby(["role", "depth"]).cumcount())
