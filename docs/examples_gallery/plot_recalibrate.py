"""
How far do batch-norm statistics lag behind the weights?
========================================================

The further, the faster the weights move: at a learning rate of 0.01 the running means are 0.08
standard deviations off, 8 times as far as at 0.0001. Re-estimating them says how far.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import gradflow

x = torch.randn(2048, 20, generator=torch.Generator().manual_seed(0))
y = (x[:, 0] * x[:, 1] > 0).long()
batches = [(x[i : i + 64], y[i : i + 64]) for i in range(0, 2048, 64)]
rates, shifts = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2), []
for lr in rates:
    torch.manual_seed(0)
    layers = [m for _ in range(4) for m in (nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU())]
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), *layers, nn.Linear(64, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for inputs, targets in batches * 2:
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = gradflow.recalibrate(model, batches)
    shifts.append(moved.mean_shift.mean())
assert 5 < shifts[4] / shifts[0] < 12
plt.plot(rates, shifts, "o-")
plt.xscale("log")
plt.ylim(0)
plt.xlabel("learning rate of Adam")
plt.ylabel("lag of running means (std. deviations)")
