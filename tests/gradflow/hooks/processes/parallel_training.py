"""Run in each of several processes by test_layouts.py: train one model with split layers, traced.

As under torchrun: parallel_training.py FOLDER KIND, where `PLANS` has the kinds.
"""

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn import functional as F

import gradflow

BATCH, LENGTH, WIDTH, HEADS, STEPS = 4, 4, 8, 4, 3


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.k_norm, self.v_act = nn.RMSNorm(WIDTH // HEADS), nn.Tanh()
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = (
            layer(x).unflatten(-1, (-1, WIDTH // HEADS)).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        found = F.scaled_dot_product_attention(q, self.k_norm(k), self.v_act(v))
        return self.out(found.transpose(1, 2).flatten(2))


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.up = nn.Linear(WIDTH, 12), nn.Linear(WIDTH, 12)
        self.act = nn.SiLU()
        self.down = nn.Linear(12, WIDTH)

    def forward(self, x):
        return self.down(self.act(self.gate(x)) * self.up(x))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(WIDTH), Attention()
        self.norm2, self.gated = nn.LayerNorm(WIDTH), Gated()

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.gated(self.norm2(x))


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, WIDTH), Block(), Block(), nn.Linear(WIDTH, 5))


def batch(step):
    generator = torch.Generator().manual_seed(step)
    return (
        torch.randn(BATCH, LENGTH, 6, generator=generator),
        torch.randn(BATCH, LENGTH, 5, generator=generator),
    )


def train(model, folder, share=slice(None)):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with gradflow.Tracer(model, folder, optimizer=optimizer, histograms=True) as tracer:
        for step in range(STEPS):
            x, y = batch(step)
            optimizer.zero_grad()
            F.mse_loss(model(x[share]), y[share]).backward()
            optimizer.step()
        tracer.end_epoch(train_loss=0.0)


def for_blocks(plan):
    return {f"{block}.{name}": style for block in "12" for name, style in plan().items()}


def attention(**output):
    heads = SequenceParallel(sequence_dim=1, use_local_output=True)
    return {
        **{f"attention.{name}": ColwiseParallel() for name in "qkv"},
        "attention.k_norm": heads,
        "attention.out": RowwiseParallel(**output),
    }


def layers():
    """Columns and rows, the usual plan: what is between them are local tensors."""
    return {
        **attention(),
        "gated.gate": ColwiseParallel(),
        "gated.up": ColwiseParallel(),
        "gated.down": RowwiseParallel(),
    }


def sequence():
    """The same, with the sequence split between them."""
    inputs = {"input_layouts": Shard(1), "desired_input_layouts": Replicate()}
    return {
        "norm1": SequenceParallel(),
        "norm2": SequenceParallel(),
        "attention": PrepareModuleInput(**inputs),
        "gated": PrepareModuleInput(**inputs),
        **attention(output_layouts=Shard(1)),
        "gated.gate": ColwiseParallel(),
        "gated.up": ColwiseParallel(),
        "gated.down": RowwiseParallel(output_layouts=Shard(1)),
    }


def distributed():
    """DTensors all the way through the gated units."""
    return {
        "gated.gate": ColwiseParallel(use_local_output=False),
        "gated.up": ColwiseParallel(use_local_output=False),
        "gated.down": RowwiseParallel(),
    }


ENDS = {
    "0": RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(1)),
    "3": ColwiseParallel(input_layouts=Shard(1), output_layouts=Replicate()),
}


def apart():
    """Not as it should be: the weight of a norm on some of the heads is in every process whole."""
    plan = layers()
    del plan["attention.k_norm"]
    return plan


PLANS = {
    "apart": apart,
    "layers": layers,
    "sequence": sequence,
    "distributed": distributed,
    "fsdp": layers,
}


def main(folder, kind):
    dist.init_process_group("gloo")
    size = dist.get_world_size()
    model, share = make_model(), slice(None)
    plan = for_blocks(PLANS[kind]) | (ENDS if kind == "sequence" else {})
    if kind == "fsdp":
        mesh = init_device_mesh("cpu", (2, size // 2), mesh_dim_names=("data", "model"))
        parallelize_module(model, mesh["model"], plan)
        for module in (model[1], model[2], model):
            fully_shard(module, mesh=mesh["data"])
        half = BATCH // 2
        share = slice(mesh.get_local_rank("data") * half, (mesh.get_local_rank("data") + 1) * half)
    else:
        parallelize_module(model, init_device_mesh("cpu", (size,)), plan)
    train(model, folder, share)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
