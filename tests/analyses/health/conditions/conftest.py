"""Small trainings with and without a fault, each run once for all tests that ask about it."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from analyses.health.conditions import CONDITIONS, Thresholds

CLASSES, WIDTH, FEATURES = 10, 32, 16


def clusters():
    """Points of ten classes in [0, 1], as pixels are."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(640) % CLASSES
    centres = torch.rand(CLASSES, FEATURES, generator=generator)
    noise = 0.1 * torch.randn(640, FEATURES, generator=generator)
    return (centres[targets] + noise).clamp(0, 1), targets


def perceptron(last=None, activation=nn.ReLU):
    return nn.Sequential(
        nn.Linear(FEATURES, WIDTH),
        activation(),
        nn.Linear(WIDTH, WIDTH),
        activation(),
        nn.Linear(WIDTH, CLASSES),
        *(last or ()),
    )


def as_it_is(step, x):
    return x


def zeroed(optimizer, step):
    optimizer.zero_grad()


@dataclass
class Plan:
    """A training; `change` changes a batch, of step n."""

    model: Any = perceptron
    rate: float = 0.1
    rule: Any = torch.optim.SGD
    change: Any = as_it_is
    dtype: torch.dtype = torch.float32
    zero: Any = zeroed
    steps: int = 60
    passes: int = 1
    loss: Any = F.cross_entropy
    options: dict[str, Any] = field(default_factory=dict)
    log: bool = True


@pytest.fixture(scope="session")
def run_of(tmp_path_factory):
    """Trains a plan and opens its run; a plan that is given twice is trained once."""
    opened = {}

    def train(plan):
        if id(plan) in opened:
            return opened[id(plan)][1]
        torch.manual_seed(0)
        x, y = clusters()
        model = plan.model().to(plan.dtype)
        optimizer = plan.rule(model.parameters(), lr=plan.rate)
        generator = torch.Generator().manual_seed(0)
        folder = tmp_path_factory.mktemp("run") / "run"
        tracer = gradflow.Tracer(model, folder, optimizer=optimizer, schedule=1, **plan.options)
        with tracer:
            for step in range(plan.steps):
                plan.zero(optimizer, step)
                for _ in range(plan.passes):
                    chosen = torch.randint(len(x), (32,), generator=generator)
                    given = plan.change(step, x[chosen])
                    given = given.to(plan.dtype) if given.is_floating_point() else given
                    loss = plan.loss(model(given).float(), y[chosen])
                    loss.backward()
                    if plan.log:
                        tracer.log(loss=loss)
                optimizer.step()
            tracer.end_epoch()
        opened[id(plan)] = plan, gradflow.open_run(folder)
        return opened[id(plan)][1]

    return train


class Answers:
    """The answers of the health check on a run, each read when it is asked for."""

    def __init__(self, run):
        self.run = run

    def __getitem__(self, key):
        told = CONDITIONS[key].read(self.run, Thresholds())
        return next(one for one in told if one.condition == key)


@pytest.fixture(scope="session")
def ask(run_of):
    """The answers of the health check on a plan."""

    def of(plan):
        return Answers(run_of(plan))

    of.plan = Plan
    of.perceptron = perceptron
    of.run = Answers
    return of
