"""
How does an embedding's gradient depend on how often tokens occur?
==================================================================

A batch whose tokens come from a few words fills few rows of the gradient: the wider the choice, the
smaller the norm, because each row then gets less of it.
"""

import tempfile

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn

import gradflow

norms = {}
for words in (1, 4, 16, 64, 256):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(256, 16), nn.Flatten(), nn.Linear(16 * 8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    folder = tempfile.mkdtemp() + "/run"
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        for _ in range(8):
            tokens = torch.randint(words, (64, 8))
            nn.functional.cross_entropy(model(tokens), torch.ones(64).long()).backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    rows = gradflow.open_run(folder).parameters.query("parameter == '0.weight'")
    norms[words] = rows.gradient_norm.median()
assert list(norms.values()) == sorted(norms.values(), reverse=True)
sns.lineplot(norms, marker="o")
plt.xscale("log", base=2)
plt.xlabel("different tokens in the data")
plt.ylabel("gradient norm of the embedding's weight")
