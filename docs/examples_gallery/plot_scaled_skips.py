"""
How weak may skips become before the gradient is lost?
======================================================

The deeper the network, the less. With skips times 0.6 the gradient at the first of 4 blocks is 7
times smaller, at the first of 36 blocks 20 million times. Without skips 23 orders of magnitude are
missing there.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import gradflow


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))

    def forward(self, x):
        return x + self.branch(x)


scales = [0, 0.2, 0.4, 0.6, 0.8, 1]
weaker = {}
x, y = torch.randn(64, 64), torch.randint(10, (64,))
for depth in (4, 12, 36):
    torch.manual_seed(0)
    model = nn.Sequential(*[Block() for _ in range(depth)], nn.Linear(64, 10))
    table = gradflow.probes.scaled_skips(model, x, y, scales=scales)
    norm = table.set_index("scale").gradient_norm
    weaker[depth] = norm[1] / norm[0.6]
    plt.semilogy(table.scale, table.gradient_norm, "o-", label=f"{depth} blocks")
assert 5 < weaker[4] < 10
assert 1e7 < weaker[36] < 3e7
assert norm[1] / norm[0] > 1e22
plt.xlabel("factor of all skips (1 = the network as it is)")
plt.ylabel("gradient norm at the first block's input")
plt.legend()
