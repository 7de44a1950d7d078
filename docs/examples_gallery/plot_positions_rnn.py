"""
How far back does the gradient of an RNN reach?
===============================================

Not far, as expected: each step back multiplies it by the same matrix W and tanh's slope, so it
falls by a constant factor a step, a straight line on this axis.
"""

import tempfile

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn

import gradflow


class Last(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(8, 32, batch_first=True)
        self.head = nn.Linear(32, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


torch.manual_seed(0)
model = Last()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
folder = tempfile.mkdtemp() + "/run"
with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
    for _ in range(5):
        x = torch.randn(16, 40, 8)
        nn.functional.cross_entropy(model(x), torch.randint(2, (16,))).backward()
        optimizer.step()
        optimizer.zero_grad()
    tracer.end_epoch()
rows = gradflow.open_run(folder).positions.query("layer == 'rnn' and tensor == 'input'")
norms = rows.groupby("first_position").gradient_norm.median()
assert norms.iloc[0] < 1e-3 * norms.iloc[-1]
sns.lineplot(norms, marker="o")
plt.yscale("log")
plt.xlabel("position in the sequence (the loss is at the last one)")
plt.ylabel("gradient norm at the input")
