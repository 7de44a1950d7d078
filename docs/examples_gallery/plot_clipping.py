"""
In which steps does clipping change the gradient?
=================================================

In all of the first hundred steps; in hardly any of the last thirty. The two curves part where the
norm is above the limit, and the clipped one stays at the limit, as it should.
"""

import tempfile

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn

import gradflow

torch.manual_seed(0)
LIMIT = 1.0
model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
folder = tempfile.mkdtemp() + "/run"
with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
    for _ in range(200):
        x = torch.randn(64, 20)
        (model(x) - 3 * x[:, :1]).square().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), LIMIT)
        optimizer.step()
        optimizer.zero_grad()
    tracer.end_epoch()
steps = gradflow.open_run(folder).steps.set_index("step")
clipped = steps.clipping_factor < 0.999
assert clipped[:100].all()
assert clipped[-30:].mean() < 0.1
assert steps.gradient_norm.max() < LIMIT * 1.001
sns.lineplot(steps.backward_gradient_norm, label="after backward")
sns.lineplot(steps.gradient_norm, label="as the optimizer received it")
plt.yscale("log")
plt.ylabel("gradient norm of all parameters")
