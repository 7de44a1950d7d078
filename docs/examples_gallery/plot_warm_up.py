"""
How does warm-up change the first updates?
==========================================

It keeps them small, as expected: Adam's first updates are full-sized without it, and grow with the
learning rate over fifty steps with it.
"""

import tempfile

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn

import gradflow

ratios = {}
for steps in (1, 50):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    warm_up = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s, n=steps: min(1, (s + 1) / n))
    folder = tempfile.mkdtemp() + "/run"
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        for _ in range(100):
            x = torch.randn(64, 20)
            nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long()).backward()
            optimizer.step()
            optimizer.zero_grad()
            warm_up.step()
        tracer.end_epoch()
    rows = gradflow.open_run(folder).parameters.query("parameter == '0.weight'")
    ratios[steps] = rows.set_index("step").update_to_weight
    sns.lineplot(ratios[steps], label="no warm-up" if steps == 1 else f"warm-up of {steps} steps")
assert ratios[50][0] < 0.1 * ratios[1][0]
plt.yscale("log")
plt.ylabel("|update| / |weight|, first layer")
