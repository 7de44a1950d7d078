"""Trace a loss with two terms: a network that solves u'' = f with u(0) = u(1) = 0.

    python examples/terms_of_a_loss.py

The equation is one term, the boundary the other. The solution is sin(4 pi x), so f is as large as
16 pi^2, and the equation drowns the boundary. The report says so:

    python -m gradflow.report runs/terms-of-a-loss
"""

import math

import torch
from torch import Tensor, nn

import gradflow

FOLDER = "runs/terms-of-a-loss"
STEPS = 240
WAVES = 4

torch.manual_seed(0)
model = nn.Sequential(
    nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(),
    nn.Linear(32, 1),
)  # fmt: skip
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)


def second_derivative(u: Tensor, x: Tensor) -> Tensor:
    """Return u'' at x [N, 1]."""
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
    return bend


with gradflow.Tracer(model, FOLDER, optimizer=optimizer, terms=10) as tracer:
    for step in range(STEPS):
        x = torch.rand(64, 1, requires_grad=True)
        f = -((WAVES * math.pi) ** 2) * torch.sin(WAVES * math.pi * x)
        equation = (second_derivative(model(x), x) - f).square().mean()
        boundary = model(torch.tensor([[0.0], [1.0]])).square().mean()
        loss = equation + boundary
        tracer.log(loss=loss)
        tracer.terms({"equation": (1.0, equation), "boundary": (1.0, boundary)})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 80 == 0:
            tracer.end_epoch(train_loss=loss.item())

try:
    gradflow.check(FOLDER, fail_on=["dominated", "conflicting"])
except gradflow.CheckFailedError as error:
    print(error)
