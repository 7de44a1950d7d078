"""
Why does LoRA's matrix A get no gradient at first?
==================================================

Because B is zero: the gradient of A passes through B. It is exactly zero in the first step, as
expected, and grows as soon as B has been updated.
"""

import tempfile

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn

import gradflow


class LoRA(nn.Module):
    def __init__(self):
        super().__init__()
        self.base = nn.Linear(32, 32).requires_grad_(False)
        self.A = nn.Parameter(torch.randn(4, 32) / 32**0.5)
        self.B = nn.Parameter(torch.zeros(32, 4))

    def forward(self, x):
        return self.base(x) + x @ self.A.T @ self.B.T


torch.manual_seed(0)
model = nn.Sequential(LoRA(), nn.ReLU(), nn.Linear(32, 2).requires_grad_(False))
optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
folder = tempfile.mkdtemp() + "/run"
with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
    for _ in range(30):
        x = torch.randn(128, 32)
        nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long()).backward()
        optimizer.step()
        optimizer.zero_grad()
    tracer.end_epoch()
rows = gradflow.open_run(folder).parameters.query("parameter in ['0.A', '0.B']")
norms = rows.pivot_table(index="step", columns="parameter", values="gradient_norm")
assert norms["0.A"][0] == 0 < norms["0.B"][0]
assert norms["0.A"][5:].min() > 0
sns.lineplot(norms, dashes=True)
plt.ylabel("gradient norm")
