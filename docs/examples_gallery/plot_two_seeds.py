"""
How far apart do two seeds end?
===============================

The two runs begin at the same loss, since both guess, and end at losses as low as each other: the
seed decides the path, and here not how well the network ends.
"""

import tempfile

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn

import gradflow

x = torch.randn(512, 20, generator=torch.Generator().manual_seed(9))
y = (x[:, 0] * x[:, 1] > 0).long()
last = []
for seed in (0, 1):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    folder = tempfile.mkdtemp() + "/run"
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        for _ in range(150):
            batch = torch.randint(512, (64,))
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            tracer.log(loss=loss)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    losses = gradflow.open_run(folder).steps.set_index("step").loss
    last.append(losses[-20:].mean())
    assert 0.6 < losses[0] < 0.85
    sns.lineplot(losses, label=f"seed {seed}")
assert max(last) / min(last) < 2
plt.ylabel("cross-entropy of the batch (nats)")
