"""
Does the gradient flow through the skip or through the branch?
==============================================================

Mostly through the skip, as expected where branches begin small: its share of the gradient is above
one half in all blocks but the first, whose input, the data, has no gradient.
"""

import tempfile

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn

import gradflow


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))

    def forward(self, x):
        return x + self.branch(x)


torch.manual_seed(0)
model = nn.Sequential(*[Block() for _ in range(8)], nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
folder = tempfile.mkdtemp() + "/run"
with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
    for _ in range(20):
        x = torch.randn(64, 64)
        nn.functional.cross_entropy(model(x), x[:, :10].argmax(1)).backward()
        optimizer.step()
        optimizer.zero_grad()
    tracer.end_epoch()
rows = gradflow.open_run(folder).junctions
assert rows.layer.nunique() == 7
assert (rows.groupby("layer").skip_share.median() > 0.5).all()
sns.stripplot(rows, x="layer", y="skip_share", color="C0")
plt.axhline(0.5, color="grey", linestyle="--")
plt.xlabel("block, from the input")
plt.ylabel("skip's share of the gradient (1 = all)")
