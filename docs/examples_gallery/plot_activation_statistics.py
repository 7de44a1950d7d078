"""
Do the activations keep their size from layer to layer?
=======================================================

With PyTorch's default weights they shrink, with He's they keep their size, as expected for ReLUs.
"""

import tempfile

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn

import gradflow

for name in ("PyTorch's default", "He's"):
    torch.manual_seed(0)
    model = nn.Sequential(*[m for _ in range(8) for m in (nn.Linear(64, 64), nn.ReLU())])
    if name == "He's":
        for layer in model[::2]:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    folder = tempfile.mkdtemp() + "/run"
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        model(torch.randn(256, 64)).sum().backward()
        optimizer.step()
        tracer.end_epoch()
    run = gradflow.open_run(folder)
    rows = run.activations.merge(run.layers[["layer", "depth", "role"]])
    std = rows.query("role == 'linear'").set_index("depth")["std"]
    assert 0.4 < std[8] / std[1] < 2.5 if name == "He's" else std[8] < 0.2 * std[1]
    sns.lineplot(std, marker="o", label=f"{name} weights")
plt.yscale("log")
plt.xlabel("depth (linear layers from the input)")
plt.ylabel("standard deviation of the output")
