"""
What does a saturated tanh do to the gradient before it?
========================================================

The tanh layer's output is near -1 or 1 as the inputs' scale grows, and the gradient that passes
through it shrinks, as expected: its slope is 1 - tanh(x) squared.
"""

import tempfile

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn

import gradflow

rms, passed = {}, {}
for scale in (0.5, 1, 2, 4, 8, 16, 32):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    folder = tempfile.mkdtemp() + "/run"
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        model(scale * torch.randn(256, 32)).sum().backward()
        optimizer.step()
        tracer.end_epoch()
    run = gradflow.open_run(folder)
    rms[scale] = run.activations.set_index("layer").rms["1"]
    norms = run.gradients.set_index("layer").norm
    passed[scale] = norms["0"] / norms["1"]
assert rms[32] > 0.9
assert passed[32] < 0.35
assert passed[0.5] > 0.8
sns.lineplot(rms, marker="o", label="root mean square of the output")
sns.lineplot(passed, marker="s", label="share of the gradient that passes")
plt.xscale("log", base=2)
plt.xlabel("standard deviation of the inputs")
plt.ylabel("of tanh (1 = full)")
