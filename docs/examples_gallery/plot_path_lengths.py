"""
Does the gradient flow along long paths or short ones?
======================================================

Along short ones, where branches begin small. A path takes the skip or the branch of each of 24
blocks. 96 % of the gradient comes along paths of at most 4 branches, which are 0.08 % of all paths:
most take about 12 (Veit et al. 2016).
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import gradflow


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 64), nn.ReLU())

    def forward(self, x):
        return x + self.branch(x)


torch.manual_seed(0)
model = nn.Sequential(*[Block() for _ in range(24)], nn.Linear(64, 10))
table = gradflow.probes.paths(model, torch.randn(64, 64), torch.randint(10, (64,)))
paths = table.paths / table.paths.sum()
assert table.share[:5].sum() > 0.9
assert paths[:5].sum() < 0.001
plt.bar(table.length, 100 * table.share, label="share of the gradient")
plt.plot(table.length, 100 * paths, "o-", color="C1", label="share of all paths")
plt.xlabel("branches on the path (of 24)")
plt.ylabel("share (%)")
plt.legend()
