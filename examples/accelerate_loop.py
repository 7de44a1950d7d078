"""Trace a loop of accelerate: the tracer takes what `prepare` returns."""

import torch
from accelerate import Accelerator

import gradflow

model, accelerator = torch.nn.Linear(4, 1), Accelerator()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
batches = torch.utils.data.DataLoader(torch.randn(32, 4), 8)
model, optimizer, batches = accelerator.prepare(model, optimizer, batches)
with gradflow.Tracer(
    model, "runs/accelerate", optimizer=optimizer, scaler=accelerator.scaler
) as tracer:
    for inputs in batches:
        accelerator.backward(model(inputs).square().mean())
        optimizer.step()
        optimizer.zero_grad()
    tracer.end_epoch()
