"""
Where and when is the gradient large?
=====================================

In the first epoch the gradient shrinks from the last layer to the first; later it is many times
larger in the first layers. Some would expect it to fall as the loss does: small default weights
held it back at first.
"""

import tempfile

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from sklearn.datasets import load_digits
from torch import nn

import gradflow

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.data, dtype=torch.float32) / 16
classes = torch.tensor(digits.target)
model = nn.Sequential(
    *[m for _ in range(4) for m in (nn.Linear(64, 64), nn.ReLU())], nn.Linear(64, 10)
)
optimizer = torch.optim.Adam(model.parameters())
folder = tempfile.mkdtemp() + "/run"
with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
    for _ in range(8):
        for batch in torch.randperm(len(images)).split(128):
            nn.functional.cross_entropy(model(images[batch]), classes[batch]).backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
rows = gradflow.open_run(folder).gradients
norms = rows.pivot_table(index="layer", columns="epoch", values="norm", aggfunc="median")
assert norms[1]["0"] < norms[1]["8"]
assert norms[8]["0"] > 5 * norms[1]["0"]
label = {"label": "log10 of the gradient norm"}
sns.heatmap(np.log10(norms), cmap="cividis", cbar_kws=label)
plt.ylabel("layer")
plt.xlabel("epoch")
