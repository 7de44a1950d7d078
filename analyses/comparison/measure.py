"""Measures the change between two runs, by layer and quantity."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.comparison.alignment import Alignment
from analyses.reading.layer_gradients import logarithm, pivot_by_step
from analyses.statistics.basics.ranks import false_discovery_adjusted
from analyses.statistics.batch_means import batch_mean
from gradflow.runs.reading.run import Run


@dataclass(frozen=True)
class ComparedQuantity:
    """A recorded quantity that is compared between two runs.

    Fields:
        name: in words.
        table, column: where it is recorded.
        ratio: whether it is compared as a ratio; else as a difference of fractions.
        key: the column of `table` that names the layers.
        roles: roles of the layers that are compared; empty for all.
    """

    name: str
    table: str
    column: str
    ratio: bool
    key: str = "layer"
    roles: tuple[str, ...] = ()


# Root mean squares, unlike norms, do not grow with the size of a tensor: layers of different width
# can be compared.
COMPARED_QUANTITIES = (
    ComparedQuantity("activation rms", "activations", "rms", True),
    ComparedQuantity("gradient rms", "gradients", "rms", True),
    ComparedQuantity("parameter norm", "parameters", "weight_norm", True, key="parameter"),
    ComparedQuantity(
        "parameter gradient norm", "parameters", "gradient_norm", True, key="parameter"
    ),
    ComparedQuantity("update to weight", "parameters", "update_to_weight", True, key="parameter"),
    ComparedQuantity("zero fraction", "activations", "zero_fraction", False, roles=("activation",)),
    ComparedQuantity("dead channels", "activations", "dead_channels", False, roles=("activation",)),
    ComparedQuantity("skip share", "junctions", "skip_share", False),
)


@dataclass(frozen=True)
class Margins:
    """How large a change must be, and the rate of false discoveries.

    Fields:
        ratio: above 1; ratios between 1 / ratio and ratio do not count as changes.
        fraction: smaller differences of fractions do not count as changes.
        alpha: false-discovery rate over all layers and quantities.
    """

    ratio: float = 1.25
    fraction: float = 0.05
    alpha: float = 0.05

    def of(self, ratio: bool) -> float:
        """The margin of an effect: for the logarithm of a ratio, or for a difference."""
        return float(np.log(self.ratio)) if ratio else self.fraction


DEFAULT_MARGINS = Margins()


def run_changes(
    first: Run, second: Run, alignment: Alignment, margins: Margins = DEFAULT_MARGINS
) -> pd.DataFrame:
    """One row per aligned layer (or parameter) and quantity that both runs recorded.

    The effect is the mean over common steps of ln(second / first), or of second - first for
    fractions, with its error by `batch_mean`.

    Columns: quantity, layer, layer_second, depth, ratio (whether compared as a ratio), effect, low,
    high (95 %), p_value (of an effect within the margins), q_value (Benjamini & Hochberg 1995, over
    all rows that have a p-value), changed (q_value at most alpha), low_selected, high_selected (for
    changed rows: level 1 - alpha R / m, R of m changed; Benjamini & Yekutieli 2005), steps (used),
    lost_first, lost_second (fraction of common steps at which the value was not finite or, for
    ratios, zero).
    """
    means, rows = [], []
    for quantity in COMPARED_QUANTITIES:
        for row, series in _series(quantity, first, second, alignment):
            mean = batch_mean(series)
            low, high = mean.interval()
            means.append(mean)
            rows.append(
                {
                    "quantity": quantity.name,
                    "ratio": quantity.ratio,
                    **row,
                    "effect": mean.value,
                    "low": low,
                    "high": high,
                    "p_value": mean.p_value(margins.of(quantity.ratio)),
                    "steps": mean.steps,
                }
            )
    if not rows:
        return pd.DataFrame(columns=["quantity", "layer", "effect", "p_value", "changed"])
    frame = pd.DataFrame(rows)
    numbers = ["effect", "low", "high", "p_value"]
    frame[numbers] = frame[numbers].astype(float)
    frame["q_value"] = adjusted_p_values(frame["p_value"])
    frame["changed"] = frame["q_value"] <= margins.alpha
    tested = int(frame["p_value"].notna().sum())
    level = 1 - margins.alpha * int(frame["changed"].sum()) / max(tested, 1)
    ends = [
        mean.interval(level) if changed else (None, None)
        for mean, changed in zip(means, frame["changed"], strict=True)
    ]
    frame[["low_selected", "high_selected"]] = np.array(ends, dtype=float)
    return frame


def adjusted_p_values(p_values: pd.Series) -> pd.Series:
    """p-values adjusted by Benjamini & Hochberg 1995; missing ones stay missing, uncounted."""
    known = p_values.dropna()
    adjusted = false_discovery_adjusted(known)
    return pd.Series(adjusted, index=known.index, dtype=float).reindex(p_values.index)


def _series(
    quantity: ComparedQuantity, first: Run, second: Run, alignment: Alignment
) -> Iterator[tuple[dict[str, object], np.ndarray]]:
    """The first columns of each row, and the effect at each step that both runs recorded."""
    tables = [run.table(quantity.table) for run in (first, second)]
    partners = _partners(quantity, tables[0][quantity.key], alignment)
    values = [
        pivot_by_step(table, quantity.column, pd.Series(list(names)), quantity.key)
        for table, names in zip(tables, (partners, partners.values()), strict=True)
    ]
    values = [frame.droplevel("epoch") for frame in values]
    values = [frame[~frame.index.duplicated(keep="last")] for frame in values]
    steps = values[0].index.intersection(values[1].index)
    values = [frame.loc[steps] for frame in values]
    if quantity.column == "dead_channels":
        values = [
            frame / _channels(run).reindex(frame.columns)
            for frame, run in zip(values, (first, second), strict=True)
        ]
    scaled = [logarithm(frame) if quantity.ratio else frame for frame in values]
    ours, theirs = (frame.to_numpy(dtype=float) for frame in scaled)
    recorded = [frame.notna().to_numpy() for frame in values]
    for index, (name, partner) in enumerate(partners.items()):
        both = recorded[0][:, index] & recorded[1][:, index]
        if not both.any():
            continue
        lost = [1 - np.isfinite(side[both, index]).mean() for side in (ours, theirs)]
        row = {
            "layer": name,
            "layer_second": partner,
            "depth": _depth(name, alignment),
            "lost_first": lost[0],
            "lost_second": lost[1],
        }
        yield row, theirs[both, index] - ours[both, index]


def _partners(
    quantity: ComparedQuantity, recorded: pd.Series, alignment: Alignment
) -> dict[str, str]:
    """The second run's name for each recorded name of the first run, if there is one."""
    partners = alignment.partners
    if quantity.roles:
        kept = alignment.pairs["role"].isin(quantity.roles)
        partners = dict(
            zip(
                alignment.pairs.loc[kept, "first"], alignment.pairs.loc[kept, "second"], strict=True
            )
        )
    found = {}
    for name in recorded.drop_duplicates():
        owner, _, own = str(name).rpartition(".")
        if quantity.key == "parameter":
            # Parameters of modules that are not layers are aligned by their full name.
            found[name] = f"{partners[owner]}.{own}" if owner in partners else name
        elif name in partners:
            found[name] = partners[name]
        elif quantity.table == "junctions":
            found[name] = name
    return found


def _depth(name: str, alignment: Alignment) -> float:
    depths = alignment.depths
    return depths.get(name, depths.get(name.rpartition(".")[0], float("nan")))


def _channels(run: Run) -> pd.Series:
    """Number of channels by layer."""
    layers = run.layers.drop_duplicates("layer").set_index("layer")["shape"].astype(str)
    counts: pd.Series = pd.to_numeric(layers.str.split("x").str[0], errors="coerce")
    return counts
