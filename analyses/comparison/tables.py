"""The tables of a comparison of two runs."""

import numpy as np
import pandas as pd

from analyses.comparison.alignment import Alignment
from analyses.reading.layer_groups import pattern_of
from analyses.reading.options import configuration_differences
from analyses.result import Table
from analyses.wording.phrases import plural
from gradflow.runs.reading.run import Run

MAX_ROWS = 15
MIN_LOST_DIFFERENCE = 0.05
EPOCHS_SHOWN = 3
MOST_LISTED = 60  # layers, one by one


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
    """Layers of equal name are counted by role; all others are listed, many of them by group."""
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
    renamed = pairs[pairs["first"] != pairs["second"]]
    by_depth = [
        f"{by} {depth:.0f}" for by, depth in zip(renamed.aligned_by, renamed.depth, strict=True)
    ]
    listed = pd.DataFrame(
        {
            names[0]: renamed["first"],
            names[1]: renamed["second"],
            "role": renamed["role"],
            "aligned by": by_depth if len(renamed) <= MOST_LISTED else renamed["aligned_by"],
        }
    )
    alone = pd.DataFrame(
        {
            **{
                name: unmatched["layer"].where(unmatched["run"] == which, "")
                for name, which in zip(names, ("first", "second"), strict=True)
            },
            "role": unmatched["role"],
            "aligned by": "no partner",
        }
    )
    columns = [*names, "role", "aligned by"]
    parts = [pd.DataFrame(rows, columns=columns), _by_group(listed, names), _by_group(alone, names)]
    return pd.concat([part[columns] for part in parts if len(part)] or parts, ignore_index=True)


def _by_group(rows: pd.DataFrame, names: tuple[str, str]) -> pd.DataFrame:
    """`rows`; of many, one for each pattern of their names, with its number of layers."""
    if len(rows) <= MOST_LISTED:
        return rows
    patterns = rows.assign(**{name: rows[name].map(pattern_of) for name in names})
    counted = patterns.groupby(list(rows.columns), sort=False).size().reset_index(name="count")
    for name in names:
        words = counted[name] + counted["count"].map(lambda count: f" ({plural(count, 'layer')})")
        counted[name] = words.where(counted[name] != "", "")
    return counted[list(rows.columns)]


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
