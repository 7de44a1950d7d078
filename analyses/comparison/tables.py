"""The tables of a comparison of two runs."""

import numpy as np
import pandas as pd

from analyses.comparison.alignment import Alignment
from analyses.reading.options import configuration_differences
from analyses.result import Table
from analyses.wording.phrases import plural
from gradflow.runs.reading.run import Run

MAX_ROWS = 15
MIN_LOST_DIFFERENCE = 0.05
EPOCHS_SHOWN = 3


def ranked_changes(changes: pd.DataFrame, ratio: bool) -> pd.DataFrame:
    """The changed rows of one kind, the largest first; ratios by the size of their logarithm."""
    kept = changes[changes["changed"] & (changes["ratio"] == ratio)]
    order = kept["effect"].abs().sort_values(ascending=False, kind="stable").index
    chosen: pd.DataFrame = kept.loc[order]
    return chosen


def comparison_tables(
    names: tuple[str, str], runs: tuple[Run, Run], alignment: Alignment, changes: pd.DataFrame
) -> tuple[Table, ...]:
    """The differences between `runs`, which are called `names`; empty tables are left out."""
    options = configuration_differences(*runs)
    sides = {"first": names[0], "second": names[1]}
    ratios, fractions = (_ranked_table(changes, ratio) for ratio in (True, False))
    found = (
        Table("options", "Options that differ", options.rename(columns=sides)),
        Table("scalars", "Scalars of the epochs, side by side", _scalars(names, runs)),
        Table("ratios", f"Largest ratios, {names[1]} over {names[0]}", ratios),
        Table("fractions", f"Largest differences, {names[1]} less {names[0]}, points", fractions),
        Table("lost", "Zero or not finite more often in one run", _lost(names, changes)),
        Table("alignment", "How layers were aligned", _alignment_table(names, alignment)),
    )
    return tuple(table for table in found if len(table.frame))


def _ranked_table(changes: pd.DataFrame, ratio: bool) -> pd.DataFrame:
    rows = ranked_changes(changes, ratio).head(MAX_ROWS)
    columns = {"effect": "ratio" if ratio else "difference"}
    columns |= {"low_selected": "low", "high_selected": "high"}
    effects = rows[list(columns)].rename(columns=columns)
    effects = np.exp(effects) if ratio else 100 * effects
    frame = pd.concat([rows[["quantity", "layer"]], effects, rows[["q_value", "steps"]]], axis=1)
    return frame.rename(columns={"q_value": "q"}).reset_index(drop=True)


def _lost(names: tuple[str, str], changes: pd.DataFrame) -> pd.DataFrame:
    apart = (changes["lost_first"] - changes["lost_second"]).abs()
    rows = changes.loc[apart[apart > MIN_LOST_DIFFERENCE].sort_values(ascending=False).index]
    titles = {
        f"lost_{which}": f"share of steps, {name}"
        for which, name in zip(("first", "second"), names, strict=True)
    }
    frame = rows.head(MAX_ROWS)[["quantity", "layer", *titles]].rename(columns=titles)
    return frame.reset_index(drop=True)


def _alignment_table(names: tuple[str, str], alignment: Alignment) -> pd.DataFrame:
    """Layers of equal name are counted by role; all others are listed."""
    pairs, unmatched = alignment.pairs, alignment.unmatched
    same = pairs[pairs["first"] == pairs["second"]].groupby("role", sort=False).size()
    rows = [
        {
            names[0]: f"{plural(int(count), 'layer')}",
            names[1]: "the same names",
            "role": role,
            "aligned by": "name",
        }
        for role, count in same.items()
    ]
    rows += [
        {
            names[0]: one["first"],
            names[1]: one["second"],
            "role": one["role"],
            "aligned by": f"{one['aligned_by']} {one['depth']:.0f}",
        }
        for _, one in pairs[pairs["first"] != pairs["second"]].iterrows()
    ]
    rows += [
        {
            names[0 if one["run"] == "first" else 1]: one["layer"],
            "role": one["role"],
            "aligned by": "no partner",
        }
        for _, one in unmatched.iterrows()
    ]
    return pd.DataFrame(rows, columns=[*names, "role", "aligned by"]).fillna("")


def _scalars(names: tuple[str, str], runs: tuple[Run, Run]) -> pd.DataFrame:
    """The scalars that both runs recorded, at the first, a middle and the last common epoch."""
    frames = [
        run.epochs.drop_duplicates("epoch", keep="last").set_index("epoch").drop(columns="step")
        for run in runs
    ]
    both = frames[0].index.intersection(frames[1].index).sort_values()
    places = np.unique(np.linspace(0, max(len(both) - 1, 0), EPOCHS_SHOWN).round().astype(int))
    rows = []
    for scalar in frames[0].columns.intersection(frames[1].columns, sort=False):
        for epoch in both[places[: len(both)]]:
            values = [pd.to_numeric(frame.at[epoch, scalar], errors="coerce") for frame in frames]
            row = {"scalar": scalar, "epoch": epoch, **dict(zip(names, values, strict=True))}
            rows.append({**row, "difference": values[1] - values[0]})
    frame = pd.DataFrame(rows, columns=["scalar", "epoch", *names, "difference"])
    return frame.dropna(subset=list(names), how="all").reset_index(drop=True)
