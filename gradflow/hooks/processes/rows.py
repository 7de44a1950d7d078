"""What the processes have recorded in one step, as rows of numbers: written, read and joined."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gradflow.hooks.processes.norms import SameNorms, SplitNorms
from gradflow.hooks.processes.wholes import Coordinates, whole_moments, whole_products
from gradflow.hooks.recording.records import StepRecord
from gradflow.hooks.reduction.deferred.junction_records import known
from gradflow.hooks.reduction.moments import Moments
from gradflow.hooks.reduction.parts import Part

# Moments by kind (activation, gradient, skip, branch) and name of the layer.
MomentsByKey = dict[tuple[str, str], Moments]

# Of a tensor's moments: the length of their values, channels, elements, batch size, magnitudes.
_HEADER = 5
# Their sum and their number.
_LOSSES = 2


@dataclass
class LeftOut:
    """What could not be joined, by layer or parameter.

    Fields:
        unknown: nothing tells which part of it each process has.
        differing: all processes should have the same, and have not.
    """

    unknown: dict[str, None] = field(default_factory=dict)
    differing: dict[str, None] = field(default_factory=dict)

    def add(self, name: str, part: Part) -> None:
        """Add a layer or parameter of which each process has `part`."""
        (self.unknown if part is Part.UNKNOWN else self.differing)[name] = None

    def join(self, other: "LeftOut") -> None:
        """Add what was left out in another step."""
        self.unknown |= other.unknown
        self.differing |= other.differing


class OwnRow:
    """What this process has recorded in one step, as a row of numbers to be exchanged."""

    def __init__(self, record: StepRecord, counts: dict[str, bool], loss_share: float) -> None:
        self._record = record
        self._parameters = record.parameters = dict(record.parameters)
        record.activations, record.gradients = dict(record.activations), dict(record.gradients)
        record.junctions = dict(record.junctions)
        self._moments = _moments_by_key(record, loss_share)
        self._products = _junction_products(record)
        self._norms = SplitNorms(record.parameters, counts)
        self._same = SameNorms(record.parameters, counts)

    def names(self) -> tuple[object, ...]:
        """What must be the same in all processes, for their rows to mean the same."""
        record = self._record
        layers = [(*key, seen.part, seen.has_channels) for key, seen in self._moments.items()]
        products = [(layer, record.junctions[layer].part) for layer in self._products]
        return (record.epoch, record.step, layers, products, *record.parameters, self._norms.names)

    def numbers(self, device: torch.device | str) -> Tensor:
        """Return the numbers of this process in float64: [L]."""
        headers: list[float] = []
        values: list[Tensor] = []
        for seen in self._moments.values():
            here = torch.as_tensor(seen.values)
            counted = seen.magnitudes
            bins = 0 if counted is None else len(counted)
            headers += (len(here), seen.channels, seen.elements, seen.batch_size, bins)
            values += [here] if counted is None else [here, counted]
        values += [*self._products.values(), self._norms.summands(device)]
        values.append(self._same.numbers(device))
        values.append(_losses(self._record))
        header = torch.tensor(headers, dtype=torch.float64, device=device)
        return torch.cat([header, *(one.double().to(device) for one in values)])

    def join(self, rows: Tensor, data_count: int) -> LeftOut:
        """Set the record to the whole of what the rows [count, 2 + L] of all processes say."""
        seen = [self._read(row) for row in rows]
        left_out = LeftOut()
        for key, own in self._moments.items():
            joined = whole_moments([(one.place, one.moments[key]) for one in seen], own.part)
            if joined is None:
                left_out.add(key[1], own.part)
            _set_moments(self._record, key, joined)
        for layer in self._products:
            junction = self._record.junctions[layer]
            products = [(one.place, one.products[layer]) for one in seen]
            summed = whole_products(products, junction.part)
            if summed is None:
                left_out.add(layer, junction.part)
            junction.products = None if summed is None else summed / data_count**2
        self._norms.put(torch.stack([one.squares for one in seen]).sum(0).tolist(), len(seen))
        for name in self._same.differing([one.same for one in seen]):
            left_out.add(name, Part.WHOLE)
            del self._parameters[name]
        total, count = torch.stack([one.losses for one in seen]).sum(0).tolist()
        self._record.losses = [total / count] if count else []
        return left_out

    def _read(self, row: Tensor) -> "_Seen":
        """Return what another process says in its row [2 + L], which means the same as ours."""
        keys = list(self._moments)
        data, model, *numbers = row[: 2 + _HEADER * len(keys)].long().tolist()
        rest = row[2 + _HEADER * len(keys) :]
        moments: MomentsByKey = {}
        for index, key in enumerate(keys):
            length, channels, elements, batch, bins = numbers[_HEADER * index :][:_HEADER]
            moments[key] = replace(
                self._moments[key],
                values=rest[:length],
                channels=channels,
                elements=elements,
                batch_size=batch,
                magnitudes=rest[length : length + bins].long() if bins else None,
            )
            rest = rest[length + bins :]
        sizes = [one.numel() for one in self._products.values()]
        sizes += [len(self._norms), len(self._same), _LOSSES]
        *products, squares, same, losses = rest[: sum(sizes)].split(sizes)
        by_layer = dict(zip(self._products, products, strict=True))
        return _Seen((data, model), moments, by_layer, squares, same, losses)


@dataclass(frozen=True)
class _Seen:
    """What one process has recorded in one step; `place` is its share of batch and of layers."""

    place: Coordinates
    moments: MomentsByKey
    products: dict[str, Tensor]
    squares: Tensor
    same: Tensor
    losses: Tensor


def _losses(record: StepRecord) -> Tensor:
    """The sum of the losses of a step, and how many there are: [2]."""
    losses = [torch.as_tensor(loss, dtype=torch.float64).cpu() for loss in record.losses]
    total = torch.stack(losses).sum() if losses else torch.zeros((), dtype=torch.float64)
    return torch.stack([total, torch.tensor(float(len(losses)), dtype=torch.float64)])


def _moments_by_key(record: StepRecord, scale: float) -> MomentsByKey:
    """All moments of `record` by kind and layer; those of gradients are multiplied by `scale`."""
    by_key: MomentsByKey = {("activation", name): m for name, m in record.activations.items()}
    for name, seen in record.gradients.items():
        # Their magnitudes were counted with the factor.
        by_key["gradient", name] = replace(seen.scaled(scale), magnitudes=seen.magnitudes)
    for layer, junction in record.junctions.items():
        for side, moments in (("skip", known(junction.skip)), ("branch", known(junction.branch))):
            if moments is not None:
                by_key[side, layer] = moments
    return by_key


def _set_moments(record: StepRecord, key: tuple[str, str], moments: Moments | None) -> None:
    """Set what `_moments_by_key` has under `key`; leave it out if there are no `moments`."""
    kind, layer = key
    if kind in ("skip", "branch"):
        setattr(record.junctions[layer], kind, moments)
        return
    by_layer = record.activations if kind == "activation" else record.gradients
    if moments is None:
        del by_layer[layer]
    else:
        by_layer[layer] = moments


def _junction_products(record: StepRecord) -> dict[str, Tensor]:
    """The gradient products by layer, for the residual additions that a backward pass reached."""
    return {
        layer: torch.as_tensor(junction.products)
        for layer, junction in record.junctions.items()
        if junction.products is not None
    }
