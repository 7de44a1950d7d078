"""Builds the data and charts of the explorer from the recorded values."""

import json
from typing import Any

import numpy as np

from analyses.wording.phrases import listing, plural
from gradflow.runs.format.quantity import Quantity
from gradflow.runs.reading.run import Experiment, Run
from reports.elements import ExplorerElement
from reports.explorer.binned_values import (
    Array,
    Bins,
    NetworkRows,
    binned_values,
    epoch_bins,
    recorded_times,
    rows_by_network,
    step_bins,
)
from reports.explorer.compact_numbers import PackedNumbers, pack
from reports.explorer.quantities import GROUPS, SHARES, SHOWN_AS_LARGEST, QuantityGroup

# Epochs are merged into at most this many bins: a heat map has no room for more columns.
MOST_BINS = 100
# Characters of the packed values in the page; with all figures the page must stay below 8 MB.
MOST_CHARACTERS = 3_500_000
# Size of a packed value if successive epochs share only their order of magnitude.
CHARACTERS_PER_VALUE = 1.6

INSTRUCTIONS = (
    "Each cell of a heat map is one layer in one {0}: the input is at the bottom, {0}s run to "
    "the right, and all networks share one colour scale. Point at a cell to read its value. Click "
    "on it, or choose below, to see that layer in all {0}s, and all layers in that {0}."
)


def build_explorer(
    experiment: Experiment, most_bins: int = MOST_BINS, most_characters: int = MOST_CHARACTERS
) -> ExplorerElement | None:
    """Build the charts and data of the explorer; None if no layer was recorded.

    Args:
        experiment: the recorded runs.
        most_bins: epochs are merged into at most this many bins.
        most_characters: the number of bins is reduced until the values take at most this many
            characters in the page.

    Raises `RunError` if a table of the run is damaged.
    """
    # Who wrote the loop knows its steps and the names of its layers; it may have no epochs.
    own = experiment.is_own
    time = "step" if own else "epoch"
    epochs = recorded_times(experiment, time)
    if not epochs:
        return None
    rows = {
        kind: rows_by_network(experiment, kind) for kind in {group.row_kind for group in GROUPS}
    }
    bins, groups = _fitting_groups(experiment, epochs, rows, most_bins, most_characters, time)
    quantities = [quantity for group in groups for quantity in group["quantities"]]
    if not quantities:
        return None
    data = {
        "networks": experiment.networks,
        "time": time,
        "named": own,
        "runs": _runs_json(experiment),
        "bins": bins,
        "rows": {kind: [_rows_json(frame) for frame in rows[kind].frames] for kind in sorted(rows)},
        "groups": groups,
    }
    error = max(quantity.pop("error") for quantity in quantities)
    return ExplorerElement(
        data=json.dumps(data, separators=(",", ":"), allow_nan=False),
        instructions=INSTRUCTIONS.format(time),
        notes=_notes(experiment, len(epochs), bins, rows["layers"], error, time),
        time=time,
    )


def is_at_hand(experiment: Experiment) -> bool:
    """Whether all tables that the explorer shows are in memory already."""
    return all(run.has_read(group.table) for run in experiment.runs for group in GROUPS)


def _fitting_groups(
    experiment: Experiment,
    epochs: list[int],
    rows: dict[str, NetworkRows],
    most_bins: int,
    most_characters: int,
    time: str,
) -> tuple[Bins, list[dict[str, Any]]]:
    """As many bins of times as fit the page, and the packed values of each group in them."""
    most_bins = min(most_bins, _fitting_bin_count(experiment, rows, most_characters))
    while True:
        bins = (step_bins if time == "step" else epoch_bins)(epochs, most_bins)
        groups = [
            _group_json(experiment, group, rows[group.row_kind], bins, time) for group in GROUPS
        ]
        groups = [group for group in groups if group["quantities"]]
        size = sum(len(one["codes"]) for group in groups for one in group["quantities"])
        if size <= most_characters or len(bins) == 1:
            return bins, groups
        # The size is nearly proportional to the number of bins; 3 % less makes one round enough.
        most_bins = max(1, int(0.97 * len(bins) * most_characters / size))


def _fitting_bin_count(
    experiment: Experiment, rows: dict[str, NetworkRows], characters: int
) -> int:
    """Estimates how many bins fit into `characters`."""
    values = 0
    for group in GROUPS:
        frames = dict(zip(experiment.networks, rows[group.row_kind].frames, strict=True))
        for run in experiment.runs:
            if len(run.table(group.table)):
                values += len(group.columns) * len(frames[run.network])
    return max(1, int(characters / max(1.0, CHARACTERS_PER_VALUE * values)))


def _group_json(
    experiment: Experiment, group: QuantityGroup, rows: NetworkRows, bins: Bins, time: str
) -> dict[str, Any]:
    frames = dict(zip(experiment.networks, rows.frames, strict=True))
    values = [binned_values(run, group, frames[run.network], bins, time) for run in experiment.runs]
    quantities = []
    for place, quantity in enumerate(group.quantities):
        # The values of all runs in order; each run has the rows of its network.
        pool = np.concatenate([one[place].ravel() for one in values])
        if not np.isnan(pool).all():
            quantities.append(_quantity_json(quantity, pool))
    return {
        "key": group.table,
        "heading": group.heading,
        "of": group.symbols,
        "rows": group.row_kind,
        "quantities": quantities,
    }


def _quantity_json(quantity: Quantity, values: Array) -> dict[str, Any]:
    packed: PackedNumbers = pack(values)
    signed = bool((values < 0).any())
    counted = quantity.dtype != "float64" or quantity.name in SHARES
    return {
        "name": quantity.name,
        "unit": "" if quantity.unit == "1" else quantity.unit,
        "formula": quantity.formula,
        "signed": signed,
        # Magnitudes of tensors span decades; shares and counts do not.
        "log": not signed and not counted and bool((values[np.isfinite(values)] > 0).any()),
        "largest": quantity.name in SHOWN_AS_LARGEST,
        "error": packed.error,
        **packed.as_json(),
    }


def _runs_json(experiment: Experiment) -> list[dict[str, Any]]:
    seeds = [(run.network, run.seed) for run in experiment.runs]
    return [
        {
            "network": experiment.networks.index(run.network),
            # Runs of one network with the same seed are distinguished by their names.
            "seed": _seed_text(run) if seeds.count((run.network, run.seed)) == 1 else run.name,
        }
        for run in experiment.runs
    ]


def _seed_text(run: Run) -> str:
    return "seed not recorded" if run.seed is None else f"seed {run.seed}"


def _rows_json(rows: Any) -> dict[str, list[Any]]:
    depths = [None if np.isnan(depth) else int(depth) for depth in rows["depth"]]
    return {
        "name": [str(name) for name in rows.index],
        **{name: [str(text) for text in rows[name]] for name in ("layer", "type", "role", "shape")},
        "depth": depths,
        "position": [round(float(position), 4) for position in rows["position"]],
    }


def _notes(
    experiment: Experiment, epochs: int, bins: Bins, layers: NetworkRows, error: float, time: str
) -> tuple[str, ...]:
    largest = listing(SHOWN_AS_LARGEST)
    cell = time if len(bins) == epochs else f"column's {time}s"
    notes = [
        f"A value is the median over the recorded steps of the {cell}; for {largest} it is the "
        "largest value. With all seeds it is the median over the seeds. A value that is not finite "
        f"counts as larger than any number. Rounding errors are at most {100 * error:.2g}\u00a0%."
    ]
    if len(bins) < epochs:
        size = -(-epochs // len(bins))
        notes.append(
            f"The {epochs} recorded {time}s are shown in {plural(len(bins), 'column')} of up to "
            f"{plural(size, time)} each."
        )
    for network, count, frame in zip(
        experiment.networks, layers.left_out, layers.frames, strict=True
    ):
        if count:
            notes.append(
                f"{network} has {plural(len(frame) + count, 'layer')}; {len(frame)} are shown, "
                "those with weights first."
            )
    notes.append(
        "The weights of a layer are its parameter named weight, otherwise its first parameter."
    )
    return tuple(notes)
