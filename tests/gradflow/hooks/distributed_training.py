"""Run under torchrun by test_distributed.py: train one model in two processes, traced.

torchrun --nproc-per-node 2 distributed_training.py FOLDER ddp|static|fsdp|uneven|dies
"""

import os
import sys
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F

import gradflow

BATCH, STEPS, CLIPPED_TO = 8, 3, 0.1


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))

    def forward(self, x):
        return F.relu(x + self.branch(x))


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), Block(10), Block(10), nn.Linear(10, 4))


def batch(step):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(BATCH, 6, generator=generator)
    return x, torch.randint(0, 4, (BATCH,), generator=generator)


def train(model, folder, share, on_step=lambda step: None):
    """Train on `share` (a slice) of every batch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        for step in range(STEPS):
            on_step(step)
            x, y = batch(step)
            optimizer.zero_grad()
            F.cross_entropy(model(x[share]), y[share]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIPPED_TO)
            optimizer.step()
            if step == 1:
                tracer.end_epoch(train_loss=0.0)
        tracer.end_epoch(train_loss=0.0)


def main(folder, kind):
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    model = make_model()
    if kind == "fsdp":
        mesh = init_device_mesh("cpu", (size,))
        for module in (model[2], model[3], model):
            fully_shard(module, mesh=mesh)
    else:
        if kind == "uneven" and rank == 1:
            model[1] = nn.Sequential(nn.ReLU(), nn.Tanh())
        # With a static graph, DDP averages the gradients of the first pass later than otherwise.
        model = nn.parallel.DistributedDataParallel(model, static_graph=kind == "static")
    share = slice(rank * BATCH // size, (rank + 1) * BATCH // size)

    def die(step):
        if kind == "dies" and rank == 1 and step == 2:
            time.sleep(2)  # the launcher ends the other process at once: let it write its epoch
            os._exit(1)

    train(model, folder, share, die)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
