"""Which processes train a model together, and the place of this one among them.

They share the work along two axes. Along the data axis (DDP, FSDP2) each has its share of the
batch. Along the model axis (tensor parallelism) all have the same share, and each computes a part
of the layers. A process is thus one of `data_count` times `model_count`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gradflow.errors import TracingError
from gradflow.hooks.processes.tensors import counts_here, is_sharded
from gradflow.hooks.wrappers import named_parameters, unwrapped

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Place:
    """The place of this process among those that train the model.

    Fields:
        group: all of them; None if it is the only one.
        count, rank: how many they are, and the number of this one.
        data, data_count: its share of the batch, and how many shares there are.
        model, model_count: its part of the layers, and how many parts there are.
        device: where the numbers that they exchange are put.
        axes: the axes of the mesh of all of them by name, with the number of this one.
    """

    group: dist.ProcessGroup | None = None
    count: int = 1
    rank: int = 0
    data: int = 0
    data_count: int = 1
    model: int = 0
    model_count: int = 1
    device: torch.device = _CPU
    axes: tuple[tuple[str, int], ...] = ()


def place_of_this_process(model: nn.Module) -> Place:
    """Return the place of this process, as the model's wrapper or its sharded parameters tell it.

    Raises `TracingError` for sharded parameters in `DistributedDataParallel`.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return Place()
    split: list[Any] = [p for p in model.parameters() if hasattr(p, "device_mesh")]
    device = next((p.device for p in model.parameters() if p.is_cuda), torch.device("cpu"))
    is_wrapped, group = _replicating_group(model)
    if is_wrapped:
        if split:
            raise TracingError(
                "the model is a DistributedDataParallel whose parameters are split over processes: "
                "shard it with fully_shard (FSDP2) over the data axis of the mesh instead"
            )
        count, rank = dist.get_world_size(group), dist.get_rank(group)
        return Place(group, count, rank, data=rank, data_count=count, device=device)
    if not split:
        return Place()
    # FSDP2 leaves what is not tensor parallel on the data axes alone: the largest mesh has all.
    largest = max(split, key=lambda p: p.device_mesh.ndim)
    mesh = largest.device_mesh
    index, data_axes = mesh.get_coordinate(), _data_axes(model, largest)
    sizes = [mesh.size(axis) for axis in range(mesh.ndim)]
    group = _group_of(mesh)
    return Place(
        group,
        dist.get_world_size(group),
        dist.get_rank(group),
        data=_number(index[:data_axes], sizes[:data_axes]),
        data_count=prod(sizes[:data_axes]),
        model=_number(index[data_axes:], sizes[data_axes:]),
        model_count=prod(sizes[data_axes:]),
        device=device,
        axes=tuple(zip(mesh.mesh_dim_names or [""] * mesh.ndim, index, strict=True)),
    )


def split_parameters(model: nn.Module, place: Place) -> dict[str, bool]:
    """The parameters that are split over processes, each with whether this one's shard counts.

    Along an axis that a parameter is not split over, only the first process counts in sums.
    """
    return {
        name: counts_here(one) and _is_first_elsewhere(one, place)
        for name, one in named_parameters(unwrapped(model)[0])
        if is_sharded(one)
    }


def _replicating_group(model: nn.Module) -> tuple[bool, dist.ProcessGroup | None]:
    """Whether the model is replicated by DDP, and the group of the processes that have it."""
    inner, wrappers = unwrapped(model)
    for wrapper in wrappers:
        if isinstance(wrapper, nn.parallel.DistributedDataParallel):
            return True, wrapper.process_group
    # torch's `replicate` gives the model another class, and makes its DDP in the first pass.
    composed: Any = sys.modules.get("torch.distributed._composable.replicate")
    if composed is None or not isinstance(inner, composed.DDP):
        return False, None
    state = composed.replicate.state(inner)
    made, given = getattr(state, "_ddp", None), state._init_kwargs
    if made is not None:
        return True, made.process_group
    mesh = given.get("device_mesh")
    return True, given.get("process_group") or (mesh.get_group() if mesh else dist.group.WORLD)


def _is_first_elsewhere(parameter: Any, place: Place) -> bool:
    """Whether this process is the first on all axes that the parameter's own mesh lacks."""
    names = parameter.device_mesh.mesh_dim_names or ()
    missing = [index for name, index in place.axes if name not in names]
    return parameter.device_mesh.ndim == len(place.axes) or not any(missing)


def _data_axes(model: nn.Module, parameter: Any) -> int:
    """How many axes of the parameter's mesh share out the batch; they come first.

    FSDP2 alone does that: it shards over one axis (FSDP), after one that replicates (HSDP).
    """
    classes = {base.__name__ for module in model.modules() for base in type(module).__mro__}
    if "FSDPModule" not in classes:
        return 0
    if "ReplicateModule" in classes:
        return 1
    return 2 if parameter.placements[0].is_replicate() and parameter.device_mesh.ndim > 1 else 1


def _number(index: Sequence[int], sizes: Sequence[int]) -> int:
    number = 0
    for here, size in zip(index, sizes, strict=True):
        number = number * size + here
    return number


def _group_of(mesh: Any) -> dist.ProcessGroup | None:
    """The group of all processes of a device mesh."""
    if mesh.ndim == 1:
        found: dist.ProcessGroup = mesh.get_group()
        return found
    if mesh.size() == dist.get_world_size():
        return dist.group.WORLD
    ranks: Tensor = mesh.mesh.flatten()
    made: Any = dist.new_group(sorted(ranks.tolist()), use_local_synchronization=True)
    own: dist.ProcessGroup = made
    return own
