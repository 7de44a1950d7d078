"""
Which term of a loss drives the update?
=======================================

The equation's, as expected: the boundary term of this differential equation is drowned, since the
right-hand side is as large as 16 pi squared.
"""

import math
import tempfile

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn

import gradflow

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
folder = tempfile.mkdtemp() + "/run"
with gradflow.Tracer(model, folder, optimizer=optimizer, terms=10) as tracer:
    for _ in range(100):
        x = torch.rand(64, 1, requires_grad=True)
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
        right = -((4 * math.pi) ** 2) * torch.sin(4 * math.pi * x)
        equation = (bend - right).square().mean()
        boundary = model(torch.tensor([[0.0], [1.0]])).square().mean()
        tracer.terms({"equation": equation, "boundary": boundary})
        (equation + boundary).backward()
        optimizer.step()
        optimizer.zero_grad()
    tracer.end_epoch()
rows = gradflow.open_run(folder).table("terms").query("kind == 'parameter'")
share = rows.groupby(["step", "term"]).share.median().unstack()
assert (share["equation"] > 0.9).all()
sns.lineplot(share, dashes=True, markers=True)
plt.ylabel("share of the gradient's norm, median")
