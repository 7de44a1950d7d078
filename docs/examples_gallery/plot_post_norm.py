"""
Does the place of the layer norm change the gradient by depth?
==============================================================

Yes: with the norm in the branch the gradient grows to more than twice on its way back, with the
norm after the addition it keeps its size. Often the latter is said to make it vanish; in these
blocks without attention it does not.
"""

import tempfile

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn

import gradflow


class Block(nn.Module):
    def __init__(self, post):
        super().__init__()
        self.post = post
        self.norm = nn.LayerNorm(64)
        self.branch = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))

    def forward(self, x):
        return self.norm(x + self.branch(x)) if self.post else x + self.branch(self.norm(x))


for post in (False, True):
    torch.manual_seed(0)
    model = nn.Sequential(*[Block(post) for _ in range(12)], nn.Linear(64, 10))
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    folder = tempfile.mkdtemp() + "/run"
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        for _ in range(4):
            nn.functional.cross_entropy(
                model(torch.randn(64, 64)), torch.randint(10, (64,))
            ).backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    norms = gradflow.open_run(folder).junctions.groupby("layer", sort=False).gradient_norm.median()
    norms = (norms / norms.iloc[-1]).reset_index(drop=True)
    assert len(norms) == 11  # the first block's input, the data, has no gradient
    assert norms.between(0.7, 1.5).all() if post else norms[0] > 2
    sns.lineplot(
        norms, marker="o", label="norm after the addition" if post else "norm in the branch"
    )
plt.yscale("log")
plt.xlabel("block, from the second one")
plt.ylabel("gradient norm / that of the last block")
