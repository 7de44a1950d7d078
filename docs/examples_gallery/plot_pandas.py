"""
How does one find a number in a run with pandas?
================================================

As in any data frame: `open_run` gives one for each table. Here the median gradient norm by layer
and epoch: in the first epoch it is largest at the last layer, in the sixth at the first one, where
it has grown 33 times.
"""

import tempfile

import matplotlib.pyplot as plt
import torch
from torch import nn

import gradflow

torch.manual_seed(0)
layers = [m for _ in range(4) for m in (nn.Linear(20, 20), nn.ReLU())]
model = nn.Sequential(*layers, nn.Linear(20, 2))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
folder = tempfile.mkdtemp() + "/run"
with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
    for _ in range(6):
        for _ in range(40):
            x = torch.randn(64, 20)
            nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long()).backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
run = gradflow.open_run(folder)
table = run.gradients.merge(run.layers[["layer", "role"]]).query("role == 'linear'")
norms = table.pivot_table(index="layer", columns="epoch", values="norm", aggfunc="median")
assert norms[1].idxmax() == "8"
assert norms[6].idxmax() == "0"
assert 20 < norms[6]["0"] / norms[1]["0"] < 50
norms[[1, 6]].plot.bar(rot=0, logy=True, ax=plt.gca(), color=["C0", "C1"])
plt.xlabel("layer")
plt.ylabel("gradient norm of the output, median")
plt.legend(title="epoch")
