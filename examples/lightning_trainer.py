"""Trace what a Trainer of Lightning trains."""

from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

import gradflow
from gradflow.integrations.lightning import GradflowCallback

callback = GradflowCallback("runs/lightning", schedule=2)
trainer = Trainer(max_epochs=2, accelerator="cpu", callbacks=[callback])
trainer.fit(BoringModel())
print(gradflow.open_run("runs/lightning").gradients)
