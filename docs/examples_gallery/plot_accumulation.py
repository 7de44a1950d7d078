"""
Do four small batches give the gradient of one large batch?
===========================================================

Yes, if each loss is divided by 4: the gradient norms agree to 7 digits. Without the division the
first gradient is 4 times as large, and so is the step.
"""

import tempfile

import matplotlib.pyplot as plt
import torch
from torch import nn

import gradflow

x = torch.randn(20, 64, 16, generator=torch.Generator().manual_seed(0))
y = (x[:, :, 0] > 0).long()
ways = {
    "one batch of 64": (1, 1),
    "four of 16, loss / 4": (4, 4),
    "four of 16, loss as it is": (4, 1),
}
norms = []
for (name, (parts, divisor)), style in zip(ways.items(), ("-", "o", "--"), strict=True):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    folder = tempfile.mkdtemp() + "/run"
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        for inputs, targets in zip(x, y, strict=True):
            for a, b in zip(inputs.chunk(parts), targets.chunk(parts), strict=True):
                (nn.functional.cross_entropy(model(a), b) / divisor).backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    rows = gradflow.open_run(folder).parameters
    norm = rows.groupby("step").gradient_norm.apply(lambda one: one.pow(2).sum() ** 0.5)
    norms.append(norm)
    plt.plot(norm, style, label=name)
assert abs(norms[1] / norms[0] - 1).max() < 1e-6
assert abs(norms[2][0] / norms[0][0] - 4) < 1e-5
plt.ylim(0)
plt.xlabel("step")
plt.ylabel("gradient norm of all parameters")
plt.legend()
