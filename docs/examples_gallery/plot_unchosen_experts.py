"""
Which experts get no gradient?
==============================

Those that the router never chooses: two of the four experts here have a gradient of exactly zero,
since the router's bias rules them out.
"""

import tempfile

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn

import gradflow


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.router = nn.Linear(16, 4)
        self.router.bias.data[2:] = -100.0
        self.experts = nn.ModuleList(nn.Linear(16, 2) for _ in range(4))

    def forward(self, x):
        weight, chosen = self.router(x).softmax(1).max(1)
        outputs = torch.stack([expert(x) for expert in self.experts], 1)
        return weight[:, None] * outputs[torch.arange(len(x)), chosen]


torch.manual_seed(0)
model = Experts()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
folder = tempfile.mkdtemp() + "/run"
with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
    for _ in range(10):
        x = torch.randn(64, 16)
        nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long()).backward()
        optimizer.step()
        optimizer.zero_grad()
    tracer.end_epoch()
rows = gradflow.open_run(folder).parameters
norms = (
    rows[rows.parameter.str.match(r"experts.*weight")].groupby("parameter").gradient_norm.median()
)
assert list(norms == 0) == [False, False, True, True]
sns.barplot(x=norms.index.str.extract(r"(\d)")[0], y=norms.to_numpy(), color="C0")
plt.xlabel("expert")
plt.ylabel("gradient norm of its weight")
