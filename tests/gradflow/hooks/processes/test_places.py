"""The place of a process, read from the mesh of its parameters."""

import pytest
import torch
from torch import nn

from gradflow.hooks.processes.places import place_of_this_process, split_parameters


@pytest.fixture
def mesh():
    """The mesh [2, 3] of six processes, seen by the fifth; nothing is exchanged."""
    fake = pytest.importorskip("torch.testing._internal.distributed.fake_pg")
    from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415

    torch.distributed.init_process_group("fake", store=fake.FakeStore(), rank=4, world_size=6)
    try:
        yield init_device_mesh("cpu", (2, 3), mesh_dim_names=("data", "model"))
    finally:
        torch.distributed.destroy_process_group()


def split(module, mesh, *placements):
    from torch.distributed.tensor import DTensor  # noqa: PLC0415

    local = DTensor.from_local(torch.ones(2, 3), mesh, placements, run_check=False)
    module.weight = nn.Parameter(local)
    return module


class FSDPModule(nn.Sequential):
    """The mark of torch's `fully_shard`: a class of that name."""


def test_a_plain_model_is_trained_by_one_process_even_in_a_group(mesh):
    place = place_of_this_process(nn.Linear(3, 2))
    assert (place.count, place.rank, place.data_count, place.model_count) == (1, 0, 1, 1)


def test_a_mesh_without_a_data_wrapper_shares_the_layers(mesh):
    from torch.distributed.tensor import Shard  # noqa: PLC0415

    place = place_of_this_process(split(nn.Linear(3, 2), mesh["model"], Shard(0)))
    assert (place.count, place.rank) == (3, 1)
    assert (place.data, place.data_count, place.model, place.model_count) == (0, 1, 1, 3)


def test_fully_sharded_models_share_the_batch_on_the_first_axis_and_layers_on_the_other(mesh):
    from torch.distributed.tensor import Replicate, Shard  # noqa: PLC0415

    model = FSDPModule(
        split(nn.Linear(3, 2), mesh, Shard(0), Shard(1)),
        split(nn.Linear(3, 2), mesh, Shard(0), Replicate()),
        split(nn.Linear(3, 2), mesh["data"], Shard(0)),
    )
    place = place_of_this_process(model)
    assert (place.count, place.rank) == (6, 4)
    assert (place.data, place.data_count, place.model, place.model_count) == (1, 2, 1, 3)
    # Of what the model axis does not split, its first process alone counts.
    assert split_parameters(model, place) == {
        "0.weight": True,
        "1.weight": False,
        "2.weight": False,
    }


def test_fully_sharded_copies_share_the_batch_on_both_axes(mesh):
    from torch.distributed.tensor import Replicate, Shard  # noqa: PLC0415

    model = FSDPModule(split(nn.Linear(3, 2, bias=False), mesh, Replicate(), Shard(0)))
    place = place_of_this_process(model)
    assert (place.data, place.data_count, place.model, place.model_count) == (4, 6, 0, 1)
    assert split_parameters(model, place) == {"0.weight": False}  # the first copy counts
