"""The tables of the possible reasons, and of what each intervention did to accuracy."""

import numpy as np
import pandas as pd

from analyses.reasons.evidence import NetworkComparison
from analyses.reasons.findings import trained_difference
from analyses.statistics.estimates import as_percent, estimate_of


def reasons_table(one: NetworkComparison) -> pd.DataFrame:
    """One row per possible reason: its value in both networks, and how far the evidence goes."""
    rows = []
    for each in one.evidence:
        row: dict[str, object] = {"candidate": each.reason.name, "unit": each.reason.unit}
        for network, mean in ((one.pair.plain, each.plain), (one.pair.residual, each.residual)):
            ends = (mean.value, mean.low, mean.high) if mean else (None, None, None)
            for label, end in zip((network, "95 % low", "95 % high"), ends, strict=True):
                name = label if label == network else f"{network}, {label}"
                row[name] = np.nan if end is None else each.reason.shown(end)
        row |= {"rho with accuracy": each.rho, "p": each.p_value, "runs": each.runs}
        rows.append(row | {"evidence": str(each.level)})
    return pd.DataFrame(rows)


def effects_table(one: NetworkComparison) -> pd.DataFrame:
    """The effect of each intervention: columns intervention, effect, points, 95 % low and high.

    An intervention that was not recorded has a row that says so.
    """
    found, pair = one.interventions, one.pair
    trained = trained_difference(one) if found.last_epoch_difference else None
    named = (
        ("train with skips", f"accuracy gained, {pair.residual} against {pair.plain}", trained),
        ("re-estimate batch-norm statistics", "difference removed", found.difference_removed),
        ("scale skips to 0", f"accuracy lost, {pair.residual}", found.loss_without_skips),
        (
            "delete one block",
            f"cost in {pair.plain} less {pair.residual}",
            found.deletion_cost_difference,
        ),
    )
    rows = []
    for intervention, effect, mean in named:
        shown = estimate_of(effect, mean, scale=as_percent, missing="not recorded")
        rows.append(
            {"intervention": intervention, "effect": effect, "points": shown.value}
            | {"95 % low": shown.low, "95 % high": shown.high, "interval": shown.method}
        )
    return pd.DataFrame(rows).astype(dict.fromkeys(("points", "95 % low", "95 % high"), float))
