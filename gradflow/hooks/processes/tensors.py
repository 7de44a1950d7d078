"""What a process holds of a tensor: a shard, a summand of it, or all of it."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds only a shard of `tensor`, as FSDP2 and tensor parallelism do."""
    return any(_is_split(placement) for placement in getattr(tensor, "placements", ()))


def is_partial(tensor: Tensor) -> bool:
    """Whether this process holds a summand of `tensor`: the sum over processes is still pending."""
    return any(placement.is_partial() for placement in getattr(tensor, "placements", ()))


def counts_here(tensor: Tensor) -> bool:
    """Whether sums over all processes are to include this process's shard of `tensor`.

    Along an axis of the device mesh that replicates the tensor, only the first process counts.
    """
    if not is_sharded(tensor):
        return True
    split: Any = tensor
    place = split.device_mesh.get_coordinate()
    return place is not None and all(
        _is_split(placement) or index == 0
        for placement, index in zip(split.placements, place, strict=True)
    )


def sums_of_partial(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the sums of those of `tensors` of which this process holds a summand, by name.

    All processes must call this; one collective adds up all that lie on the same mesh.
    """
    found: dict[str, Tensor] = {}
    alike: dict[Any, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if not is_partial(tensor):
            continue
        split: Any = tensor
        if split.placements[0].reduce_op == "sum" and len(split.placements) == 1:
            alike.setdefault((split.device_mesh, tensor.dtype), {})[name] = held_here(tensor)
        else:
            found[name] = local_part(tensor)
    for (mesh, _), parts in alike.items():
        flat = torch.cat([part.reshape(-1) for part in parts.values()])
        dist.all_reduce(flat, dist.ReduceOp.SUM, mesh.get_group())
        sums = flat.split([part.numel() for part in parts.values()])
        for (name, part), total in zip(parts.items(), sums, strict=True):
            found[name] = total.view(part.shape)
    return found


def local_part(tensor: Tensor) -> Tensor:
    """Return the part of `tensor` that this process holds: its shard, or all of it.

    If the sum over processes is still pending, this is the sum, which they compute together: all of
    them must call this. Complex numbers become pairs of real ones, whose norm is the same:
    [..., 2].
    """
    if is_partial(tensor):
        tensor = _summed(tensor)
    part = held_here(tensor)
    return torch.view_as_real(part.resolve_conj()) if part.is_complex() else part


def held_here(tensor: Any) -> Tensor:
    """Return what this process holds of `tensor`, be it a shard or a summand."""
    if type(tensor) is Tensor:
        return tensor
    part: Tensor = tensor.detach().to_local() if hasattr(tensor, "to_local") else tensor
    # The result of a collective that may still be running.
    return part.trigger_wait() if hasattr(part, "trigger_wait") else part


def _is_split(placement: Any) -> bool:
    # FSDP2 over tensor parallelism splits in strides, of which `is_shard` says no.
    return not (placement.is_replicate() or placement.is_partial())


def _summed(tensor: Any) -> Tensor:
    from torch.distributed.tensor import Replicate  # noqa: PLC0415 - loads much, rarely needed

    placements = [
        Replicate() if placement.is_partial() else placement for placement in tensor.placements
    ]
    summed: Tensor = tensor.redistribute(placements=placements)
    return summed
