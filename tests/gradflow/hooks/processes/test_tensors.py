"""What a process holds of a DTensor, and whether it counts in sums over all processes."""

import pytest
import torch

from gradflow.hooks.processes.tensors import (
    counts_here,
    held_here,
    is_partial,
    is_sharded,
    sums_of_partial,
)


@pytest.fixture
def mesh():
    """The mesh [2, 2] of four processes, seen by the last one; nothing is exchanged."""
    fake = pytest.importorskip("torch.testing._internal.distributed.fake_pg")
    from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415

    torch.distributed.init_process_group("fake", store=fake.FakeStore(), rank=3, world_size=4)
    try:
        yield init_device_mesh("cpu", (2, 2), mesh_dim_names=("first", "second"))
    finally:
        torch.distributed.destroy_process_group()


@pytest.fixture
def make(mesh):
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard  # noqa: PLC0415
    from torch.distributed.tensor.placement_types import _StridedShard  # noqa: PLC0415

    placements = {
        "shard": Shard(0),
        "whole": Replicate(),
        "strided": _StridedShard(0, split_factor=2),
        "summand": Partial(),
    }
    return lambda *names: DTensor.from_local(
        torch.ones(2, 3), mesh, [placements[name] for name in names], run_check=False
    )


@pytest.mark.parametrize(
    ("names", "sharded", "counts"),
    [
        (("shard", "shard"), True, True),
        (("strided", "shard"), True, True),
        (("whole", "strided"), True, False),  # the first on that axis has the same shard
        (("shard", "whole"), True, False),
        (("whole", "whole"), False, True),
    ],
)
def test_a_shard_counts_once(make, names, sharded, counts):
    assert is_sharded(make(*names)) is sharded
    assert counts_here(make(*names)) is counts


def test_plain_tensors_are_whole():
    x = torch.ones(2)
    assert not is_sharded(x)
    assert not is_partial(x)
    assert counts_here(x)
    assert held_here(x) is x


def test_summands_are_added_up_together(mesh, monkeypatch):
    from torch.distributed.tensor import DTensor, Partial, Shard  # noqa: PLC0415

    calls = []

    def all_reduce(flat, *_):
        calls.append(flat.numel())
        flat *= 2

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    axis = mesh["first"]
    tensors = {
        f"summand{size}": DTensor.from_local(torch.full((size, 2), float(size)), axis, [Partial()])
        for size in range(1, 30)
    }
    tensors["shard"] = DTensor.from_local(torch.ones(3), axis, [Shard(0)])
    tensors["plain"] = torch.ones(3)
    found = sums_of_partial(tensors)
    assert calls == [2 * sum(range(1, 30))]
    assert list(found) == [f"summand{size}" for size in range(1, 30)]
    for size in range(1, 30):
        assert torch.equal(found[f"summand{size}"], torch.full((size, 2), 2.0 * size))
