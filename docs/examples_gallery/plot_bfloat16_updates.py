"""
How much of an update gets lost if weights are kept in bfloat16?
================================================================

About three quarters at this learning rate: what is far smaller than 1/256 of a weight is rounded
away, as expected, so only small weights still move.
"""

import tempfile

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn

import gradflow

ratios = {}
for dtype in (torch.float32, torch.bfloat16):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2)).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    folder = tempfile.mkdtemp() + "/run"
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        for _ in range(40):
            x = torch.randn(64, 20, dtype=dtype)
            nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long()).backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    rows = gradflow.open_run(folder).parameters.query("parameter == '0.weight'")
    ratios[dtype] = rows.set_index("step").update_norm
    sns.lineplot(ratios[dtype], label=str(dtype).removeprefix("torch."))
assert 0.2 < ratios[torch.bfloat16].median() / ratios[torch.float32].median() < 0.33
plt.ylabel("norm of the update, first layer")
