"""
How many ReLU units does a learning rate that is too large kill?
================================================================

All 64 of the second hidden layer, half of all: at a learning rate of 10 they soon give zero for
every sample. At 0.1 none do. A large step can move a unit's bias so far down that no sample gets a
positive number any more.
"""

import tempfile

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn

import gradflow

for lr in (0.1, 10.0):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    x = torch.randn(256, 20)
    y = (x[:, 0] > 0).long()
    folder = tempfile.mkdtemp() + "/run"
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        for _ in range(40):
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    rows = gradflow.open_run(folder).activations.query("layer in ['1', '3']")
    dead = rows.groupby("step").dead_channels.sum() / 128 * 100
    last = rows.query("layer == '3'").dead_channels.iloc[-1]
    assert last == 64 if lr == 10 else dead.max() == 0
    sns.lineplot(dead, label=f"learning rate {lr:g}")
plt.xlabel("step")
plt.ylabel("units that are zero for all samples (%)")
