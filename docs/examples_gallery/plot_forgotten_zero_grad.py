"""
What does a forgotten zero_grad look like?
==========================================

The gradient that the optimizer receives adds up from step to step, instead of that of the last
batch alone: its norm is many times larger, and neighbouring steps point the same way.
"""

import tempfile

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn

import gradflow

cosines = {}
for name in ("zero_grad at each step", "zero_grad forgotten"):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    folder = tempfile.mkdtemp() + "/run"
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        for _ in range(60):
            x = torch.randn(32, 20)
            nn.functional.cross_entropy(model(x), torch.randint(2, (32,))).backward()
            optimizer.step()
            if name == "zero_grad at each step":
                optimizer.zero_grad()
        tracer.end_epoch()
    rows = gradflow.open_run(folder).parameters.query("parameter == '0.weight'")
    cosines[name] = rows.set_index("step").gradient_cosine
    sns.lineplot(cosines[name], label=name)
assert cosines["zero_grad forgotten"].iloc[-20:].median() > 0.9
assert cosines["zero_grad at each step"].iloc[-20:].median() < 0.6
plt.ylabel("cosine with the gradient one step before")
