"""
How much noise does dropout add to the gradient?
================================================

More than one may think: with the usual rate of 0.5, two gradients of the same weights and the same
256 samples have a cosine of 0.67. Without dropout they are equal.
"""

import tempfile

import matplotlib.pyplot as plt
import torch
from torch import nn

import gradflow

x = torch.randn(256, 20, generator=torch.Generator().manual_seed(0))
y = (x[:, 0] > 0).long()
rates, cosines = (0, 0.1, 0.3, 0.5, 0.7, 0.9), []
for rate in rates:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Linear(20, 64), nn.ReLU(), nn.Dropout(rate)),
        *(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(rate)),
        nn.Linear(64, 2),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)  # the same weights at each step
    folder = tempfile.mkdtemp() + "/run"
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        for _ in range(20):
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    rows = gradflow.open_run(folder).parameters.query("parameter == '3.weight'")
    cosines.append(rows.gradient_cosine.mean())
assert cosines[0] > 0.9999
assert 0.6 < cosines[3] < 0.75
plt.plot(rates, cosines, "o-")
plt.xlabel("dropout rate")
plt.ylabel("cosine of two gradients of one batch")
