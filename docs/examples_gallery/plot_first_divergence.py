"""
At which step do two runs part?
===============================

In step 20, where one value of one sample was changed by 0.001. Before it all gradient norms are
equal to the last bit. There they differ by 4 parts in 10 million, and no later step is equal again.
"""

import tempfile

import matplotlib.pyplot as plt
import torch
from torch import nn

import gradflow

tables = []
for faulty in (False, True):
    torch.manual_seed(0)
    model = nn.Sequential(*[m for _ in range(4) for m in (nn.Linear(32, 32), nn.Tanh())])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    folder = tempfile.mkdtemp() + "/run"
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        for step in range(60):
            x = torch.randn(64, 32)
            if faulty and step == 20:
                x[0, 0] += 1e-3
            (model(x) - x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    rows = gradflow.open_run(folder).gradients
    tables.append(rows.pivot(index="step", columns="layer", values="norm"))
first, second = tables
difference = ((second - first) / first).abs().max(axis=1)
assert (difference[:20] == 0).all()
assert (difference[20:] > 0).all()
assert 1e-7 < difference[20] < 1e-6
plt.plot(difference, "o-")
plt.yscale("symlog", linthresh=1e-9)
plt.ylim(-1e-10)
plt.xlabel("step")
plt.ylabel("relative difference of gradient norms")
