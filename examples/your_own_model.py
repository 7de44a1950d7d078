"""Trace your own model, print what was recorded, and write a report about it.

    python examples/your_own_model.py

This trains a small convolutional network on scikit-learn's digits for two epochs. The tracer wraps
an ordinary training loop.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gradflow
from gradflow import report

FOLDER = "runs/your-own-model"

digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
loader = DataLoader(TensorDataset(images, torch.tensor(digits.target)), 32, shuffle=True)

model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1),
    nn.ReLU(),
    *[layer for _ in range(5) for layer in (nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())],
    nn.Flatten(),
    nn.Linear(16 * 8 * 8, 10),
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

with gradflow.Tracer(model, FOLDER, optimizer=optimizer) as tracer:
    for _ in range(2):
        for inputs, targets in loader:
            loss = nn.functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        tracer.end_epoch(train_loss=loss.item())

run = gradflow.open_run(FOLDER)
print(run.gradients.groupby(["epoch", "layer"]).norm.median().unstack())
report.main([FOLDER])
