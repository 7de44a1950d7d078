"""
When does an alert say that units have died?
============================================

At the dashed line: the tracer tells while the model still trains, as its units die at a learning
rate of 10.
"""

import tempfile

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn

import gradflow

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=10.0)
x = torch.randn(256, 20)
y = (x[:, 0] > 0).long()
alerts = []
folder = tempfile.mkdtemp() + "/run"
with gradflow.Tracer(model, folder, optimizer=optimizer, alerts=alerts.append) as tracer:
    for _ in range(100):
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    tracer.end_epoch()
rows = gradflow.open_run(folder).activations.query("layer in ['1', '3']")
(told,) = [alert for alert in alerts if alert.condition == "dead" and alert.begins]
assert told.noticed < 99
sns.lineplot(rows, x="step", y="dead_channels", hue="layer", style="layer")
plt.axvline(told.noticed, color="black", linestyle="--")
plt.ylabel("units that are zero for all samples (of 64)")
