"""Several processes that train one model: their observations joined to those of the whole batch.

Each process observes its share of the batch (and, under FSDP2, its shard of every parameter). When
the numbers are brought over from the device, the processes exchange by `torch.distributed` what
each has reduced its share to, and the first one writes the run. Since DDP and FSDP2 average the
processes' gradients, the loss is the mean of theirs: a layer's gradient is divided by their number.
With shares of equal size the result is that of a single process.
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

# Moments by kind (activation, gradient, skip, branch) and layer.
MomentsByKey = dict[tuple[str, str], Moments]

SHARDED_NORMS = ("weight_norm", "gradient_norm", "update_norm", "previous_gradient_norm")


class Processes:
    """The processes that train a model together: one alone, or those of its process group."""

    def __init__(self, model: nn.Module) -> None:
        self._group = _group_of(model)
        self._sharded = {name for name, p in model.named_parameters() if is_sharded(p)}
        joined = self._group is not None
        self.count = dist.get_world_size(self._group) if joined else 1
        self.rank = dist.get_rank(self._group) if joined else 0

    @property
    def is_writer(self) -> bool:
        """Whether this process is the one that writes the run."""
        return self.rank == 0

    @torch.no_grad()
    def join(self, records: list[StepRecord]) -> list[StepRecord]:
        """The records of the whole batch, the same in every process; called by all of them.

        Raises `TracingError` where the processes observed different layers or steps.
        """
        if self.count == 1 or not records:
            return records
        parts = [_moments_by_key(record, 1 / self.count) for record in records]
        self._require_agreement(records, parts)
        for record, entries in zip(records, parts, strict=True):
            _set_moments(record, self._join_moments(entries))
            self._join_products(record)
            self._join_parameters(record)
        return records

    def _require_agreement(self, records: list[StepRecord], parts: list[MomentsByKey]) -> None:
        names = [
            (record.epoch, record.step, *entries, *_junction_products(record), *record.parameters)
            for record, entries in zip(records, parts, strict=True)
        ]
        digest = hashlib.sha256(repr(names).encode()).digest()
        device = next((_values(one).device for entries in parts for one in entries.values()), "cpu")
        mine = torch.tensor([int.from_bytes(digest[:7], "big")], device=device)
        least, greatest = mine.clone(), mine.clone()
        dist.all_reduce(least, dist.ReduceOp.MIN, self._group)
        dist.all_reduce(greatest, dist.ReduceOp.MAX, self._group)
        if int(least) != int(greatest):
            raise TracingError(
                f"the {self.count} processes observed different layers or steps up to step "
                f"{records[-1].step}: the model must run the same layers in all of them"
            )

    def _join_moments(self, entries: MomentsByKey) -> MomentsByKey:
        """Each entry taken as one batch over all processes: one exchange for all of them."""
        if not entries:
            return entries
        parts = list(entries.values())
        sizes = [len(part.values) for part in parts]
        mine = torch.cat([_values(part) for part in parts])
        counts = mine.new_tensor([(part.elements, part.batch_size) for part in parts])
        values, numbers = self._gather(mine), self._gather(counts)
        by_process = [
            [
                replace(part, values=vector, elements=int(elements), batch_size=int(batch))
                for part, vector, (elements, batch) in zip(
                    parts, flat.split(sizes), number.tolist(), strict=True
                )
            ]
            for flat, number in zip(values, numbers, strict=True)
        ]
        joined = (reduce(Moments.join, of_entry) for of_entry in zip(*by_process, strict=True))
        return dict(zip(entries, joined, strict=True))

    def _join_products(self, record: StepRecord) -> None:
        split = _junction_products(record)
        if split:
            added = self._add([products / self.count**2 for products in split.values()])
            for layer, products in zip(split, added, strict=True):
                record.junctions[layer].products = products

    def _join_parameters(self, record: StepRecord) -> None:
        """Norms of shards become norms of whole parameters; whole ones are alike everywhere."""
        for name, values in record.parameters.items():
            if name not in self._sharded:
                continue
            local = {key: torch.as_tensor(value).double() for key, value in values.items()}
            known = [key for key in SHARDED_NORMS if key in local]
            parts = [local[key] ** 2 for key in known]
            has_cosine = "gradient_cosine" in local
            if has_cosine:
                product = local["gradient_cosine"].nan_to_num(0.0)
                product = product * local["gradient_norm"] * local["previous_gradient_norm"]
                parts.append(product)
            added = self._add([part.reshape(1) for part in parts])
            values |= {key: added[i][0].sqrt() for i, key in enumerate(known)}
            if has_cosine:
                norms = values["gradient_norm"] * values["previous_gradient_norm"]
                values["gradient_cosine"] = added[-1][0] / norms

    def _add(self, parts: list[Tensor]) -> list[Tensor]:
        """The parts, each added up over the processes: one exchange for all of them."""
        flat = torch.cat([part.reshape(-1).to(parts[0].dtype) for part in parts])
        dist.all_reduce(flat, dist.ReduceOp.SUM, self._group)
        pieces = flat.split([part.numel() for part in parts])
        return [piece.reshape(part.shape) for piece, part in zip(pieces, parts, strict=True)]

    def _gather(self, tensor: Tensor) -> list[Tensor]:
        """`tensor` of every process, in order of rank."""
        everyone = [torch.empty_like(tensor) for _ in range(self.count)]
        dist.all_gather(everyone, tensor, self._group)
        return everyone


def inner_model(model: nn.Module) -> nn.Module:
    """The user's own model inside a DDP wrapper; else `model` itself."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        inner: nn.Module = model.module
        return inner
    return model


def is_sharded(parameter: Tensor) -> bool:
    """Whether this process holds only a part of `parameter`, as under FSDP2."""
    placements = getattr(parameter, "placements", ())
    return any(placement.is_shard() for placement in placements)


def local_part(tensor: Tensor) -> Tensor:
    """What this process holds of `tensor`: its shard, or all of it."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def _group_of(model: nn.Module) -> dist.ProcessGroup | None:
    if not (dist.is_available() and dist.is_initialized()):
        return None
    if isinstance(model, nn.parallel.DistributedDataParallel):
        group: dist.ProcessGroup = model.process_group
        return group
    # FSDP2 shards over a mesh; over one of several dimensions its norms need the whole world too.
    return dist.group.WORLD if any(map(is_sharded, model.parameters())) else None


def _moments_by_key(record: StepRecord, scale: float) -> MomentsByKey:
    """All moments of `record` by kind and layer, those of gradients times `scale`."""
    parts: MomentsByKey = {("activation", layer): one for layer, one in record.activations.items()}
    parts |= {("gradient", layer): one.scaled(scale) for layer, one in record.gradients.items()}
    for layer, junction in record.junctions.items():
        for side, one in (("skip", junction.skip), ("branch", junction.branch)):
            if one is not None:
                parts[side, layer] = one
    return parts


def _set_moments(record: StepRecord, parts: MomentsByKey) -> None:
    """Set the moments of `record` to `parts`, as `_moments_by_key` names them."""
    for (kind, layer), one in parts.items():
        if kind == "activation":
            record.activations[layer] = one
        elif kind == "gradient":
            record.gradients[layer] = one
        else:
            setattr(record.junctions[layer], kind, one)


def _junction_products(record: StepRecord) -> dict[str, Tensor]:
    """The products of the junctions that a backward pass has come by, by layer."""
    return {
        layer: junction.products
        for layer, junction in record.junctions.items()
        if junction.products is not None
    }


def _values(moments: Moments) -> Tensor:
    return torch.as_tensor(moments.values)
