"""
Does weight decay hold the weights' norm down?
==============================================

Yes, as expected: without decay the norm of the hidden weights grows as the network fits; with
AdamW's decay of 1 it ends below where it began.
"""

import tempfile

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn

import gradflow

ends = {}
for decay in (0.0, 1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=decay)
    folder = tempfile.mkdtemp() + "/run"
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        for _ in range(200):
            x = torch.randn(64, 20)
            nn.functional.cross_entropy(model(x), (x[:, 0] * x[:, 1] > 0).long()).backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    rows = gradflow.open_run(folder).parameters.query("parameter == '0.weight'")
    norms = rows.set_index("step").weight_norm
    ends[decay] = norms.iloc[-1] / norms.iloc[0]
    sns.lineplot(norms, label=f"weight decay {decay:g}")
assert ends[0.0] > 1 > ends[1.0]
plt.ylabel("norm of the first layer's weights")
