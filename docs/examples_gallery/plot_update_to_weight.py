"""
How large is an update, compared with the weight?
=================================================

With Adam the ratio grows with the learning rate, as expected: ten times the rate, several times
the ratio. The dashed line is the rule of thumb of 1/1000.
"""

import tempfile

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn

import gradflow

medians = []
for lr in (1e-4, 1e-3, 1e-2):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    folder = tempfile.mkdtemp() + "/run"
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        for _ in range(30):
            x = torch.randn(64, 20)
            nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long()).backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    rows = gradflow.open_run(folder).parameters.query("parameter.str.endswith('weight')")
    ratio = rows.groupby("step").update_to_weight.median()
    medians.append(ratio.median())
    sns.lineplot(ratio, label=f"learning rate {lr:g}")
assert medians[2] > 3 * medians[1] > 9 * medians[0]
plt.axhline(1e-3, color="grey", linestyle="--")
plt.yscale("log")
plt.xlabel("step")
plt.ylabel("|update| / |weight|, median over weights")
