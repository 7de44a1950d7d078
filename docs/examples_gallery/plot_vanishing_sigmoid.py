"""
Do gradients vanish in a deep network of sigmoids?
==================================================

Yes, as expected: a sigmoid's slope is at most 1/4, so each layer shrinks the gradient further.
With ReLUs and He's initialization the gradient keeps its size.
"""

import tempfile

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn

import gradflow

for activation in (nn.Sigmoid, nn.ReLU):
    torch.manual_seed(0)
    model = nn.Sequential(*[m for _ in range(10) for m in (nn.Linear(32, 32), activation())])
    if activation is nn.ReLU:
        for layer in model[::2]:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    folder = tempfile.mkdtemp() + "/run"
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        for _ in range(5):
            nn.functional.cross_entropy(
                model(torch.randn(64, 32)), torch.randint(32, (64,))
            ).backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    run = gradflow.open_run(folder)
    rows = run.gradients.merge(run.layers[["layer", "depth", "role"]]).query("role == 'linear'")
    norms = rows.groupby("depth").norm.median()
    ratio = norms[1] / norms[10]
    assert ratio < 1e-4 if activation is nn.Sigmoid else 0.1 < ratio < 10
    sns.lineplot(norms, marker="o", label=activation.__name__)
plt.yscale("log")
plt.xlabel("depth (linear layers from the input)")
plt.ylabel("gradient norm of the layer's output")
