"""The record of one step, and its conversion to the columns of the recorded tables."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, compress, repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.recording.parameter_table import ParameterTable, to_array
from gradflow.hooks.reduction import histograms
from gradflow.hooks.reduction.deferred.junction_records import (
    JunctionRecord,
    JunctionTable,
    Seen,
    known,
    products_of,
    variances_of,
)
from gradflow.hooks.reduction.deferred.waiting import MISSING, DeferredMoments
from gradflow.hooks.reduction.moments import Moments
from gradflow.hooks.reduction.statistics.tables import MomentTable, packed, statistics_of
from gradflow.runs.format.layer_tables import TENSOR_STATISTICS
from gradflow.runs.format.schema import TABLES

Columns = dict[str, Any]


@dataclass(frozen=True)
class UpdatedBy:
    """What updates a parameter.

    Fields:
        optimizer: the class of its optimizer, numbered if there are several of that class;
            `update_tables.NO_OPTIMIZER` if none of the optimizers has it.
        group: the number of its parameter group there, counted from 0; None if it has none.
        learning_rate: of that group in this step; None if it has none.
    """

    optimizer: str
    group: int | None = None
    learning_rate: float | None = None


class Owners(Mapping[str, UpdatedBy]):
    """What updates each parameter, most of which have the same.

    Fields:
        numbers: of each parameter by name, the place of its own in `kinds`; shared by many steps.
        kinds: what there is, in this step.
    """

    __slots__ = ("kinds", "numbers")

    def __init__(self, numbers: Mapping[str, int], kinds: Sequence[UpdatedBy]) -> None:
        self.numbers, self.kinds = numbers, kinds

    @classmethod
    def of(cls, found: Mapping[str, UpdatedBy]) -> "Owners":
        """Return what is given by name in this form."""
        if isinstance(found, Owners):
            return found
        return cls({name: place for place, name in enumerate(found)}, list(found.values()))

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[str]:
        return iter(self.numbers)

    def __getitem__(self, name: str) -> UpdatedBy:
        return self.kinds[self.numbers[name]]


@dataclass
class StepRecord:
    """What was observed in one optimizer step, still on the device.

    Several forward and backward passes within a step count as one batch. `histograms` says whether
    magnitudes are counted in this step; `loss_share` is the factor of the loss in that of all
    processes together; `in_turns`, that `parameters` are only those whose turn it was;
    `updates_in_turns`, that updates are only those of some.
    """

    epoch: int
    step: int
    histograms: bool = False
    loss_share: float = 1.0
    # Moments, deferred until `finish`, which makes a `MomentTable` of them.
    activations: Any = field(default_factory=dict)
    gradients: Any = field(default_factory=dict)
    junctions: Any = field(default_factory=dict)  # of `JunctionRecord`; then a `JunctionTable`
    parameters: Mapping[str, dict[str, Tensor | float]] = field(default_factory=dict)
    in_turns: bool = False
    updated_by: Mapping[str, UpdatedBy] = field(default_factory=dict)
    scale: Tensor | None = None
    parameter_scale: Tensor | None = None
    skipped: Tensor | bool | None = None
    modes: dict[str, str] = field(default_factory=dict)
    losses: list[Tensor | float] = field(default_factory=list)
    further: dict[str, Any] = field(default_factory=dict)
    wanted: bool = True  # by the schedule: else it is written only around a spike
    closed: bool = False
    updates_in_turns: bool = False
    in_graph: Callable[["StepRecord"], None] | None = None
    # What is to be joined, and whether a forward pass has seen it.
    _joins: list[tuple[bool, Callable[[], None]]] = field(default_factory=list, repr=False)

    def take_up(self) -> None:
        """Take up what waits on the device in another form; this waits for the device."""
        take_up, self.in_graph = self.in_graph, None
        if take_up is not None:
            take_up(self)

    @property
    def rows(self) -> int:
        """The number of rows that it will have in all tables but those of histograms."""
        tensors = len(self.activations) + len(self.gradients)
        return tensors + len(self.junctions) + len(self.parameters)

    def add_activation(self, layer: str, seen: Seen) -> None:
        """Add the moments of the output of `layer`."""
        if layer not in self.activations:
            self.activations[layer] = seen
        else:
            self._join(self.activations, layer, seen)

    def note_mode(self, layer: str, mode: str) -> None:
        """Note the mode in which `layer` ran, training or evaluation."""
        self.modes[layer] = mode

    def add_gradient(self, layers: Sequence[str], seen: Seen) -> None:
        """Add the moments of the gradient that `layers` share; ignored once the step has ended."""
        if not self.closed:
            for layer in layers:
                if layer not in self.gradients:
                    self.gradients[layer] = seen
                else:
                    self._join(self.gradients, layer, seen)

    def add_junction(self, layer: str, entry: JunctionRecord) -> JunctionRecord:
        """Add the junction of the block `layer`; return the record that takes its gradients."""
        first: JunctionRecord = self.junctions.setdefault(layer, entry)
        if first is not entry:
            if any(
                isinstance(one, DeferredMoments)
                for one in (first.skip, first.branch, entry.skip, entry.branch)
            ):
                self._joins.append((True, partial(first.join, entry)))
            else:  # of layers that wait too, the moments are not known yet
                first.join(entry)
        return first

    def settle(self, *, only_first: bool = False) -> None:
        """Join what was seen again in further passes; call it once all of it has been reduced.

        With `only_first`, leave out what a forward pass saw again: it has failed.
        """
        joins, self._joins = self._joins, []
        for is_of_forward, join in joins:
            if not (only_first and is_of_forward):
                join()

    def finish(self) -> None:
        """Put the moments in place of the deferred ones; leave out those that are missing."""
        self.settle()
        if self.activations:
            self.activations = packed(self.activations)
        if self.gradients:
            self.gradients = packed(self.gradients)
        if self.junctions:
            self.junctions = JunctionTable(self.junctions)

    def _join(self, store: dict[str, Any], layer: str, seen: Seen) -> None:
        if type(seen) is Moments and type(store[layer]) is Moments:
            store[layer] = store[layer].join(seen)
        else:
            self._joins.append((store is self.activations, partial(_join, store, layer, seen)))


def _join(store: dict[str, Any], layer: str, seen: Seen) -> None:
    mine, theirs = known(store[layer]), known(seen)
    # A layer of which one pass is missing has no row: it would be that of the other passes.
    store[layer] = MISSING if mine is None or theirs is None else mine.join(theirs)


def to_columns(records: list[StepRecord]) -> dict[str, Columns]:
    """Return the rows of `records` as columns, by table; tables without rows are left out."""
    activations = [(r, r.activations) for r in records]
    gradients = [(r, r.gradients) for r in records]
    tables = {
        "activations": _tensor_columns(activations),
        "gradients": _tensor_columns(gradients),
        "activation_histograms": _histogram_columns(activations),
        "gradient_histograms": _histogram_columns(gradients),
        "parameters": _parameter_columns(records),
        "junctions": _junction_columns(records),
    }
    return {name: columns for name, columns in tables.items() if columns}


def concatenate(batches: list[Columns]) -> Columns:
    """Concatenate the rows of several batches of one table."""
    if len(batches) == 1:
        return batches[0]
    return {name: np.ma.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _tensor_columns(groups: list[tuple[StepRecord, Mapping[str, Moments]]]) -> Columns:
    tables = [(r, MomentTable.of(store)) for r, store in groups if store]
    if not any(len(table) for _, table in tables):
        return {}
    statistics, batch_sizes, have_channels = statistics_of([table for _, table in tables])
    without_channels = ~have_channels
    lengths = [len(table) for _, table in tables]
    columns: Columns = {
        "epoch": _array(np.repeat([r.epoch for r, _ in tables], lengths)),
        "step": _array(np.repeat([r.step for r, _ in tables], lengths)),
        "layer": _array(list(chain.from_iterable(t.names for _, t in tables)), dtype=object),
        "batch_size": _array(batch_sizes),
    }
    for quantity in TENSOR_STATISTICS:
        values = statistics[quantity.name]
        if quantity.by_channel:
            filled = np.where(without_channels, 0, values).astype(quantity.dtype)
            columns[quantity.name] = np.ma.array(filled, mask=without_channels)
        elif quantity.needs_variance:
            # Next to a nan or an infinite element, nan is the value.
            undefined = np.isnan(values) & (statistics["nonfinite"] == 0)
            columns[quantity.name] = np.ma.array(values, mask=undefined)
        else:
            columns[quantity.name] = np.ma.array(values)
    return columns


def _histogram_columns(groups: list[tuple[StepRecord, Mapping[str, Moments]]]) -> Columns:
    names: list[str] = []
    counts: list[Tensor] = []
    lengths = []
    for _, store in groups:
        before = len(names)
        for name, magnitudes in MomentTable.of(store).magnitudes():
            names.append(name)
            counts.append(magnitudes)
        lengths.append(len(names) - before)
    if not counts:
        return {}
    return {
        "epoch": _array(np.repeat([r.epoch for r, _ in groups], lengths)),
        "step": _array(np.repeat([r.step for r, _ in groups], lengths)),
        "layer": _array(names, dtype=object),
        **histograms.to_columns(torch.stack(counts).cpu().numpy()),
    }


def _parameter_columns(records: list[StepRecord]) -> Columns:
    tables = [ParameterTable.of(record.parameters) for record in records]
    places = [table.rows() for table in tables]
    lengths = list(map(len, places))
    if not sum(lengths):
        return {}
    # Of most steps all parameters are known.
    at = [None if len(p) == len(t.names) else p for t, p in zip(tables, places, strict=True)]
    names_of = [
        table.names if chosen is None else tuple([table.names[place] for place in chosen])
        for table, chosen in zip(tables, at, strict=True)
    ]
    names = (
        "weight_norm",
        "backward_gradient_norm",
        "gradient_norm",
        "update_norm",
        "gradient_cosine",
    )
    columns: Columns = {
        "epoch": _array(np.repeat([record.epoch for record in records], lengths)),
        "step": _array(np.repeat([record.step for record in records], lengths)),
        "parameter": _array(list(chain.from_iterable(names_of)), dtype=object),
        **{
            name: to_array([table.numbers(name, p) for table, p in zip(tables, at, strict=True)])
            for name in names
        },
    }
    weight, update = columns["weight_norm"], columns["update_norm"]
    # Missing values: a zero parameter has no ratio, and a zero gradient has no direction.
    columns["update_to_weight"] = np.ma.masked_where(
        weight == 0, update / np.ma.where(weight == 0, 1.0, weight)
    )
    columns["clipping_factor"] = np.ma.masked_all(sum(lengths))  # once the norms are unscaled
    columns["gradient_cosine"] = np.ma.masked_invalid(columns["gradient_cosine"])
    columns |= _updated_by_columns([Owners.of(record.updated_by) for record in records], names_of)
    return {quantity.name: columns[quantity.name] for quantity in TABLES["parameters"].columns}


def _updated_by_columns(owners: list[Owners], names_of: list[tuple[str, ...]]) -> Columns:
    # Many parameters share what updates them.
    kinds: list[UpdatedBy | None] = [None]
    places = []  # of what updates each parameter, in `kinds`
    before: tuple[Any, ...] = ()
    for one, names in zip(owners, names_of, strict=True):
        if not (before and before[0] is one.numbers and before[1] == names):
            numbers = map(one.numbers.get, names, repeat(-1))
            before = one.numbers, names, np.fromiter(numbers, np.int64, len(names))
        places.append(np.where(before[2] < 0, 0, before[2] + len(kinds)))
        kinds += one.kinds
    at = np.concatenate(places)
    groups = [None if one is None else one.group for one in kinds]
    rates: list[Tensor | float | None] = [
        None if one is None else one.learning_rate for one in kinds
    ]
    columns = {
        "optimizer": np.ma.array(
            np.array(["" if one is None else one.optimizer for one in kinds], dtype=object),
            mask=[one is None for one in kinds],
        ),
        "group": np.ma.array(
            [group or 0 for group in groups], mask=[group is None for group in groups]
        ),
        "learning_rate": _gather(rates),
    }
    return {name: column[at] for name, column in columns.items()}


def _junction_columns(records: list[StepRecord]) -> Columns:
    having = [(r, JunctionTable.of(r.junctions)) for r in records if r.junctions]
    tables = [table for _, table in having]
    rows = [int(table.reached.sum()) for table in tables]
    if not sum(rows):
        return {}
    gg, ss, bb, sb, sg, whole, rest = products_of(tables).T
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine, share = sb / np.sqrt(ss * bb), sg / gg
        cancellation = 1 - np.sqrt(gg) / (np.sqrt(ss) + np.sqrt(bb))
        error = np.sqrt(rest / whole)
    return {
        "epoch": _array(np.repeat([r.epoch for r, _ in having], rows)),
        "step": _array(np.repeat([r.step for r, _ in having], rows)),
        "layer": _array(_chosen((t.names, t.reached) for t in tables), dtype=object),
        "skip_type": _array(_chosen((t.skip_types, t.reached) for t in tables), dtype=object),
        "gradient_norm": np.ma.array(np.sqrt(gg)),
        "skip_gradient_norm": np.ma.array(np.sqrt(ss)),
        "branch_gradient_norm": np.ma.array(np.sqrt(bb)),
        "skip_branch_cosine": np.ma.array(cosine, mask=(ss == 0) | (bb == 0)),
        "skip_share": np.ma.array(share, mask=gg == 0),
        "cancellation": np.ma.array(cancellation, mask=(ss == 0) & (bb == 0)),
        "input_gradient_norm": np.ma.array(np.sqrt(whole)),
        "residual_error": np.ma.array(error, mask=whole == 0),
        "skip_variance": variances_of(tables, 0),
        "branch_variance": variances_of(tables, 1),
    }


def _chosen(parts: Iterable[tuple[Sequence[str], np.ndarray]]) -> list[str]:
    """Of each part, the entries that are chosen, one part after the other."""
    return list(chain.from_iterable(compress(names, chosen.tolist()) for names, chosen in parts))


def _gather(values: list[Tensor | float | None]) -> np.ma.MaskedArray[Any, Any]:
    """Return the values as one masked array, with a single transfer; None becomes missing."""
    mask = np.array([value is None for value in values])
    gathered = np.array([value if isinstance(value, float) else 0.0 for value in values])
    on_device = [index for index, value in enumerate(values) if isinstance(value, Tensor)]
    if on_device:
        known = torch.stack([torch.as_tensor(values[index]) for index in on_device])
        gathered[on_device] = known.cpu().double().numpy()
    return np.ma.array(gathered, mask=mask)


def _array(values: Any, dtype: Any = None) -> np.ma.MaskedArray[Any, Any]:
    """Return `values` as a masked array without missing ones."""
    # Of a list, np.ma.array would ask each element for its mask.
    return np.ma.array(np.array(values, dtype=dtype), mask=False)
