"""Joins the records of several processes that train one model into those of the whole batch.

Each process observes its share of the batch and, under FSDP2, its shard of every parameter. When
the numbers are copied from the device, the processes exchange their moments and norms through
`torch.distributed`, and the process of rank 0 writes the run. DDP and FSDP2 average the gradients
of the processes, so the loss is the mean of their losses: each process's layer gradients are
divided by the number of processes. If the shares of the batch are of equal size, the result is that
of a single process.
"""

import hashlib
from dataclasses import replace
from functools import reduce

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gradflow.errors import TracingError
from gradflow.hooks.records import StepRecord
from gradflow.hooks.reduction.fused import Moments
from gradflow.hooks.wrappers import named_parameters, unwrapped

# Moments by kind (activation, gradient, skip, branch) and name of the layer.
MomentsByKey = dict[tuple[str, str], Moments]

SHARDED_NORMS = (
    "weight_norm",
    "backward_gradient_norm",
    "gradient_norm",
    "update_norm",
    "previous_gradient_norm",
)


class Processes:
    """The processes that train a model together: a single one, or a process group."""

    def __init__(self, model: nn.Module) -> None:
        self._group = _group_of(model)
        parameters = named_parameters(unwrapped(model)[0])
        self._sharded = {name for name, parameter in parameters if is_sharded(parameter)}
        joined = self._group is not None
        self.count = dist.get_world_size(self._group) if joined else 1
        self.rank = dist.get_rank(self._group) if joined else 0

    @property
    def is_writer(self) -> bool:
        """Whether this process writes the run."""
        return self.rank == 0

    @torch.no_grad()
    def join(self, records: list[StepRecord]) -> list[StepRecord]:
        """Return the records of the whole batch, the same in every process; all must call this.

        Raises `TracingError` if the processes observed different layers or steps.
        """
        if self.count == 1 or not records:
            return records
        by_record = [_moments_by_key(record, 1 / self.count) for record in records]
        self._require_agreement(records, by_record)
        for record, by_key in zip(records, by_record, strict=True):
            _set_moments(record, self._join_moments(by_key))
            self._join_products(record)
            self._join_parameters(record)
        return records

    def _require_agreement(self, records: list[StepRecord], by_record: list[MomentsByKey]) -> None:
        """Raise `TracingError` unless all processes have the same steps and layers."""
        names = [
            (record.epoch, record.step, *by_key, *_junction_products(record), *record.parameters)
            for record, by_key in zip(records, by_record, strict=True)
        ]
        digest = hashlib.sha256(repr(names).encode()).digest()
        moments = (entry for by_key in by_record for entry in by_key.values())
        device = next((_values(entry).device for entry in moments), "cpu")
        mine = torch.tensor([int.from_bytes(digest[:7], "big")], device=device)
        least, greatest = mine.clone(), mine.clone()
        dist.all_reduce(least, dist.ReduceOp.MIN, self._group)
        dist.all_reduce(greatest, dist.ReduceOp.MAX, self._group)
        if int(least) != int(greatest):
            raise TracingError(
                f"the {self.count} processes observed different layers or steps up to step "
                f"{records[-1].step}: the model must run the same layers in all of them"
            )

    def _join_moments(self, by_key: MomentsByKey) -> MomentsByKey:
        """Join each entry over all processes, as one batch, in a single exchange."""
        if not by_key:
            return by_key
        own = list(by_key.values())
        sizes = [len(moments.values) for moments in own]
        mine = torch.cat([_values(moments) for moments in own])
        counts = mine.new_tensor([(moments.elements, moments.batch_size) for moments in own])
        values, numbers = self._gather(mine), self._gather(counts)
        by_process = [
            [
                replace(moments, values=vector, elements=int(elements), batch_size=int(batch))
                for moments, vector, (elements, batch) in zip(
                    own, flat.split(sizes), number.tolist(), strict=True
                )
            ]
            for flat, number in zip(values, numbers, strict=True)
        ]
        joined = (reduce(Moments.join, same_key) for same_key in zip(*by_process, strict=True))
        return dict(zip(by_key, joined, strict=True))

    def _join_products(self, record: StepRecord) -> None:
        """Add up the gradient products of each residual addition over the processes."""
        by_layer = _junction_products(record)
        if by_layer:
            sums = self._add([products / self.count**2 for products in by_layer.values()])
            for layer, products in zip(by_layer, sums, strict=True):
                record.junctions[layer].products = products

    def _join_parameters(self, record: StepRecord) -> None:
        """Turn norms of shards into norms of parameters; others are equal in all processes."""
        for name, values in record.parameters.items():
            if name not in self._sharded:
                continue
            local = {key: torch.as_tensor(value).double() for key, value in values.items()}
            known = [key for key in SHARDED_NORMS if key in local]
            squares = [local[key] ** 2 for key in known]
            has_cosine = "gradient_cosine" in local
            if has_cosine:
                product = local["gradient_cosine"].nan_to_num(0.0)
                product = product * local["gradient_norm"] * local["previous_gradient_norm"]
                squares.append(product)
            sums = self._add([square.reshape(1) for square in squares])
            values |= {key: sums[i][0].sqrt() for i, key in enumerate(known)}
            if has_cosine:
                norms = values["gradient_norm"] * values["previous_gradient_norm"]
                values["gradient_cosine"] = sums[-1][0] / norms

    def _add(self, tensors: list[Tensor]) -> list[Tensor]:
        """Add each tensor up over the processes, all in a single exchange."""
        flat = torch.cat([tensor.reshape(-1).to(tensors[0].dtype) for tensor in tensors])
        dist.all_reduce(flat, dist.ReduceOp.SUM, self._group)
        sums = flat.split([tensor.numel() for tensor in tensors])
        return [total.reshape(tensor.shape) for total, tensor in zip(sums, tensors, strict=True)]

    def _gather(self, tensor: Tensor) -> list[Tensor]:
        """Return `tensor` as every process holds it, in order of rank."""
        everyone = [torch.empty_like(tensor) for _ in range(self.count)]
        dist.all_gather(everyone, tensor, self._group)
        return everyone


def is_sharded(parameter: Tensor) -> bool:
    """Whether this process holds only a shard of `parameter`, as under FSDP2."""
    placements = getattr(parameter, "placements", ())
    return any(placement.is_shard() for placement in placements)


def local_part(tensor: Tensor) -> Tensor:
    """Return the part of `tensor` that this process holds: its shard, or all of it.

    Complex numbers become pairs of real ones, whose norm is the same: [..., 2].
    """
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return torch.view_as_real(part.resolve_conj()) if part.is_complex() else part


def _group_of(model: nn.Module) -> dist.ProcessGroup | None:
    if not (dist.is_available() and dist.is_initialized()):
        return None
    for wrapper in unwrapped(model)[1]:
        if isinstance(wrapper, nn.parallel.DistributedDataParallel):
            group: dist.ProcessGroup = wrapper.process_group
            return group
    # FSDP2 shards over a device mesh. Norms need all processes, even if the mesh has several axes.
    return dist.group.WORLD if any(map(is_sharded, model.parameters())) else None


def _moments_by_key(record: StepRecord, scale: float) -> MomentsByKey:
    """All moments of `record` by kind and layer; those of gradients are multiplied by `scale`."""
    by_key: MomentsByKey = {("activation", name): m for name, m in record.activations.items()}
    by_key |= {("gradient", name): m.scaled(scale) for name, m in record.gradients.items()}
    for layer, junction in record.junctions.items():
        for side, moments in (("skip", junction.skip), ("branch", junction.branch)):
            if moments is not None:
                by_key[side, layer] = moments
    return by_key


def _set_moments(record: StepRecord, by_key: MomentsByKey) -> None:
    """Set the moments of `record` to `by_key`, which is keyed as in `_moments_by_key`."""
    for (kind, layer), moments in by_key.items():
        if kind == "activation":
            record.activations[layer] = moments
        elif kind == "gradient":
            record.gradients[layer] = moments
        else:
            setattr(record.junctions[layer], kind, moments)


def _junction_products(record: StepRecord) -> dict[str, Tensor]:
    """The gradient products by layer, for the residual additions that a backward pass reached."""
    return {
        layer: junction.products
        for layer, junction in record.junctions.items()
        if junction.products is not None
    }


def _values(moments: Moments) -> Tensor:
    return torch.as_tensor(moments.values)
