"""
Which steps does the tracer keep around a spike of the loss?
============================================================

A batch with inputs a hundred times too large makes the loss spike at step 60. The steps around it
are kept, marked by dots, although only every 25th is recorded otherwise.
"""

import tempfile

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn

import gradflow

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
folder = tempfile.mkdtemp() + "/run"
with gradflow.Tracer(model, folder, optimizer=optimizer, schedule=25, around_spikes=4) as tracer:
    for step in range(100):
        x = torch.randn(64, 16)
        loss = nn.functional.cross_entropy(
            model(x * (100 if step == 60 else 1)), (x[:, 0] > 0).long()
        )
        tracer.log(loss=loss)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    tracer.end_epoch()
run = gradflow.open_run(folder)
losses = run.steps.set_index("step").loss
kept = run.table("spikes").query("spike == 60").step
assert set(range(56, 65)) <= set(kept)
assert losses.idxmax() == 60
sns.lineplot(losses, color="grey")
sns.scatterplot(losses[losses.index.isin(kept)], color="C0", zorder=3)
plt.yscale("log")
plt.ylabel("cross-entropy of the batch (nats)")
