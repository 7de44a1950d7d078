"""
When do two tasks begin to pull against each other?
===================================================

After 20 steps. At first both gradients point the same way (cosine 0.88), since either task lowers
both losses. From step 100 on they are opposite (-0.99): where their sum is smallest, the gradients
of two tasks that cannot both be met cancel.
"""

import tempfile

import matplotlib.pyplot as plt
import torch
from torch import nn

import gradflow

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
folder = tempfile.mkdtemp() + "/run"
with gradflow.Tracer(model, folder, optimizer=optimizer, terms=5) as tracer:
    for _ in range(200):
        x = torch.randn(256, 16)
        a = (model(x)[:, 0] - x[:, 0]).square().mean()
        b = (model(x)[:, 0] - x[:, 0] - x[:, 1]).square().mean()
        tracer.terms({"a": a, "b": b})
        (a + b).backward()
        optimizer.step()
        optimizer.zero_grad()
    tracer.end_epoch()
rows = gradflow.open_run(folder).table("terms").query("kind == 'model'")
norms = rows.pivot(index="step", columns="term", values="gradient_norm")
both = rows.groupby("step").sum_norm.first()
cosine = (both**2 - norms.a**2 - norms.b**2) / (2 * norms.a * norms.b)
assert cosine[0] > 0.8
assert cosine[cosine < 0].index[0] == 20
assert cosine.loc[100:].median() < -0.98
plt.plot(cosine, "o-")
plt.axhline(0, color="grey", linestyle=":")
plt.xlabel("step")
plt.ylabel("cosine of the two tasks' gradients")
