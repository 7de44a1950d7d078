"""
What do stale batch-norm statistics cost?
=========================================

With a momentum of 0.001 the running statistics lag far behind the weights, so accuracy in
evaluation mode is lower than with statistics that are estimated anew, as expected.
"""

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gradflow

torch.manual_seed(0)
x = 3 + 2 * torch.randn(512, 10)
data = TensorDataset(x, (x[:, 0] > 3).long())
model = nn.Sequential(
    nn.Linear(10, 32), nn.BatchNorm1d(32, momentum=0.001), nn.ReLU(), nn.Linear(32, 2)
)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
loader = DataLoader(data, 64, shuffle=True)
for _ in range(5):
    for inputs, targets in loader:
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
both = gradflow.evaluate_both(model, loader, loader)
assert both.re_estimated > both.running + 0.1
labels = ["running", "re-estimated"]
sns.barplot(x=labels, y=[100 * both.running, 100 * both.re_estimated], color="C0")
plt.xlabel("batch-norm statistics")
plt.ylabel("accuracy (%)")
