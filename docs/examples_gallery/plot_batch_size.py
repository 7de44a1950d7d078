"""
How noisy is the gradient of a small batch?
===========================================

Very: the gradients of two neighbouring steps with 4 samples hardly point the same way; with 1024
they agree. The weights stay as they are here, so all the difference is made by the batch.
"""

import tempfile

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn

import gradflow

cosines = {}
for size in (4, 16, 64, 256, 1024):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    folder = tempfile.mkdtemp() + "/run"
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        for _ in range(20):
            x = torch.randn(size, 20)
            nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long()).backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    rows = gradflow.open_run(folder).parameters.query("parameter == '0.weight'")
    cosines[size] = rows.gradient_cosine.median()
assert list(cosines.values()) == sorted(cosines.values())
assert cosines[4] < 0.5
assert cosines[1024] > 0.8
sns.lineplot(cosines, marker="o")
plt.xscale("log", base=2)
plt.xlabel("samples in a batch")
plt.ylabel("cosine with the gradient one step before")
