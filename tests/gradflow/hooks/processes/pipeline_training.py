"""Run in each of two processes by test_pipeline.py: train a model in two stages, each traced.

As under torchrun: pipeline_training.py FOLDER KIND, where the kind is a schedule of torch.
"""

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import pipelining
from torch.nn import functional as F

import gradflow

BATCH, MICRO_BATCHES, STEPS = 8, 4, 3


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))

    def forward(self, x):
        return F.relu(x + self.branch(x))


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 10), Block(10), nn.Linear(10, 10), Block(10), nn.Linear(10, 4)
    )


def batch(step):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(BATCH, 6, generator=generator)
    return x, torch.randn(BATCH, 4, generator=generator)


def loss_of(output, y):
    """A sum, so that those of the micro-batches add up to that of the batch."""
    return (output - y).square().sum()


def train(model, folder, run_batch):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    with gradflow.Tracer(model, folder, optimizer=optimizer, histograms=True) as tracer:
        for step in range(STEPS):
            optimizer.zero_grad()
            run_batch(*batch(step))
            optimizer.step()
        tracer.end_epoch(train_loss=0.0)


def train_alone(folder):
    model = make_model()
    train(model, folder, lambda x, y: loss_of(model(x), y).backward())


def main(folder, kind):
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    stage_model = make_model()[:2] if rank == 0 else make_model()[2:]
    stage = pipelining.PipelineStage(stage_model, rank, 2, torch.device("cpu"))
    schedule = getattr(pipelining, kind)(
        stage, n_microbatches=MICRO_BATCHES, loss_fn=loss_of, scale_grads=False
    )

    def run_batch(x, y):
        if rank == 0:
            schedule.step(x)
        else:
            schedule.step(target=y, losses=[])

    train(stage_model, f"{folder}{rank}", run_batch)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
