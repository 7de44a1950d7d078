"""Trace one network trained in three ways, and print what differs most between the runs.

    python examples/compare_two_runs.py

The network has five linear layers and classifies scikit-learn's digits: with sigmoids, with ReLUs,
and with ReLUs at a ten times higher learning rate. A report compares the runs with figures:

    cd runs/compare-two-runs && python -m gradflow.report sigmoid relu relu-faster
"""

from itertools import pairwise

import torch
from sklearn.datasets import load_digits
from torch import nn

import gradflow
from analyses.comparison.runs import compare_runs

FOLDER = "runs/compare-two-runs"
WIDTHS = (64, 48, 48, 48, 48)
BATCH = 64
EPOCHS = 3

digits = load_digits()
images = torch.tensor(digits.data, dtype=torch.float32) / 16
classes = torch.tensor(digits.target)


def train(name: str, activation: type[nn.Module], lr: float) -> gradflow.Run:
    """Train a network with `activation` after each hidden layer, and trace it."""
    torch.manual_seed(0)
    layers = [
        module
        for inputs, outputs in pairwise(WIDTHS)
        for module in (nn.Linear(inputs, outputs), activation())
    ]
    model = nn.Sequential(*layers, nn.Linear(WIDTHS[-1], 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    description = {"seed": 0, "configuration": {"activation": activation.__name__, "lr": lr}}
    folder = f"{FOLDER}/{name}"
    with gradflow.Tracer(model, folder, optimizer=optimizer, description=description) as tracer:
        for _ in range(EPOCHS):
            for batch in torch.randperm(len(images)).split(BATCH):
                loss = nn.functional.cross_entropy(model(images[batch]), classes[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            tracer.end_epoch(train_loss=loss.item())
    return gradflow.open_run(folder)


sigmoid = train("sigmoid", nn.Sigmoid, lr=0.001)
relu = train("relu", nn.ReLU, lr=0.001)
faster = train("relu-faster", nn.ReLU, lr=0.01)

for first, second in ((sigmoid, relu), (relu, faster)):
    result = compare_runs(first, second)
    print(f"\n{result.summary}")
    for table in result.tables:
        print(f"\n{table.title}\n{table.frame.head(6).to_string(index=False)}")
