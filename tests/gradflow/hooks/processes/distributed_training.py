"""Run in each of several processes by the tests beside it: train one model together, traced.

As under torchrun: distributed_training.py FOLDER KIND, where `main` says what the kinds are.
"""

import os
import sys
import time
from contextlib import nullcontext
from functools import partial

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed._composable.replicate import replicate
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn import functional as F

import gradflow
from gradflow.hooks.processes.joining import Processes

BATCH, STEPS, CLIPPED_TO = 8, 3, 0.1


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))

    def forward(self, x):
        return F.relu(x + self.branch(x))


def make_model(blocks=2):
    torch.manual_seed(0)
    between = [Block(10) for _ in range(blocks)]
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), *between, nn.Linear(10, 4))


def batch(step):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(BATCH, 6, generator=generator)
    return x, torch.randint(0, 4, (BATCH,), generator=generator)


def passes(model, x, y, micro_batches=1):
    """Forward and backward, in several passes if asked for, of which the last one reduces."""
    for number, rows in enumerate(torch.arange(len(x)).chunk(micro_batches), 1):
        is_last = number == micro_batches
        with nullcontext() if is_last else model.no_sync():
            (F.cross_entropy(model(x[rows]), y[rows]) / micro_batches).backward()


def train(model, folder, share, on_step=lambda step: None, micro_batches=1, steps=STEPS, **options):
    """Train on `share` (a slice) of every batch."""
    optimizer = options.pop("optimizer", torch.optim.Adam)(model.parameters(), lr=0.01)
    options = {"histograms": True} | options
    with gradflow.Tracer(model, folder, optimizer=optimizer, **options) as tracer:
        for step in range(steps):
            on_step(step)
            x, y = batch(step)
            optimizer.zero_grad()
            passes(model, x[share], y[share], micro_batches)
            nn.utils.clip_grad_norm_(model.parameters(), CLIPPED_TO)
            optimizer.step()
            if step == 1:
                tracer.end_epoch(train_loss=0.0)
        tracer.end_epoch(train_loss=0.0)


def shard(model, mesh):
    for module in (*model[2:-1], model):
        fully_shard(module, mesh=mesh)
    return model


def main(folder, kind):
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    model, options = make_model(), {}
    if kind == "some":
        # All but the first of the processes train, which takes a group of their own.
        names = ("replicate", "shard")
        mesh = DeviceMesh("cpu", [[1, 2], [3, 4]], mesh_dim_names=names)
        if rank == 0:
            dist.barrier()  # it has the store by which the others find each other
            return
        model, rank, size = shard(model, mesh), rank - 1, size - 1
        assert Processes(model).agree(10 + rank) == 10
    elif kind == "fsdp":
        model = shard(model, init_device_mesh("cpu", (size,)))
    elif kind == "hsdp":
        names = ("replicate", "shard")
        mesh = init_device_mesh("cpu", (2, size // 2), mesh_dim_names=names)
        model = shard(model, mesh)
    elif kind == "replicate":
        replicate(model)
    elif kind == "replicate_by_fsdp":
        from torch.distributed._composable import replicate_with_fsdp  # noqa: PLC0415

        replicate_with_fsdp.replicate(model, mesh=init_device_mesh("cpu", (size,)))
    else:
        if kind == "uneven" and rank == 1:
            model[1] = nn.Sequential(nn.ReLU(), nn.Tanh())
        options["micro_batches"] = 2 if kind == "accumulated" else 1
        if kind == "zero":
            options["optimizer"] = partial(
                ZeroRedundancyOptimizer, optimizer_class=torch.optim.Adam
            )
        if kind == "budget":
            options |= {"schedule": gradflow.Budget(0.3), "steps": 60}
        model = nn.parallel.DistributedDataParallel(model, static_graph=kind == "static")
    share = slice(rank * BATCH // size, (rank + 1) * BATCH // size)

    def on_step(step):
        if kind == "budget":
            time.sleep(0.002 * (1 + rank))  # so that each would decide differently
        if kind == "dies" and rank == 1 and step == 2:
            time.sleep(2)  # the launcher ends the other process at once: let it write its epoch
            os._exit(1)

    train(model, folder, share, on_step, **options)
    if kind == "some":
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
