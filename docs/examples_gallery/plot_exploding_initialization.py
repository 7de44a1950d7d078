"""
What does an initialization that is twice too large do?
=======================================================

As expected, the gradient grows from layer to layer on its way back: about twice at each of ten
layers, about a thousand times in all.
"""

import tempfile

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn

import gradflow

for gain in (1.0, 2.0):
    torch.manual_seed(0)
    model = nn.Sequential(*[m for _ in range(10) for m in (nn.Linear(64, 64), nn.ReLU())])
    for layer in model[::2]:
        nn.init.normal_(layer.weight, std=gain * (2 / 64) ** 0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    folder = tempfile.mkdtemp() + "/run"
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        for _ in range(5):
            model(torch.randn(64, 64)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    run = gradflow.open_run(folder)
    rows = run.gradients.merge(run.layers[["layer", "depth", "role"]]).query("role == 'linear'")
    norms = rows.groupby("depth").norm.median()
    norms /= norms[10]
    assert 200 < norms[1] < 3000 if gain == 2 else 0.2 < norms[1] < 5
    sns.lineplot(norms, marker="o", label=f"weights {gain:g} times He's")
plt.yscale("log")
plt.xlabel("depth (linear layers from the input)")
plt.ylabel("gradient norm / that of the last layer")
