"""What watches a training beside gradflow, and the loop that runs one under it."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from training import Training, held_out_loss, summed


@dataclass(frozen=True)
class Complaint:
    """Something that a tool found wrong.

    Fields:
        subject: the tool's own name for it, a key of `subjects.SUBJECTS`.
        step: the first step, where the tool names one.
    """

    subject: str
    step: int | None = None


class Watcher:
    """A tool as its own documentation says that it is used in a training loop.

    This one does nothing; the tools override what they need.
    """

    name = "none"

    def begin(
        self, model: nn.Module, optimizers: list[torch.optim.Optimizer], steps: int, folder: Path
    ) -> None:
        """Attach to a model; raises what the tool raises."""

    def before_step(self, step: int, loss: Tensor) -> None:
        """After the backward pass and clipping, before the optimizer's step."""

    def after_step(self, step: int, loss: Tensor) -> None:
        """After the optimizer's step, before gradients are zeroed."""

    def end_epoch(self, train_loss: float, held: float | None) -> None:
        """At the end of an epoch, with the loss on held-out data if there is any."""

    def end(self) -> list[Complaint]:
        """Detach, and say what was found."""
        return []


def watched(
    training: Training, watcher: Watcher, folder: Path
) -> tuple[list[float], list[Complaint]]:
    """Train as `training.train` does, under another tool.

    Returns:
        The loss of each step, and the tool's complaints.
    """
    optimizers = training.optimizers()
    base = [[group["lr"] for group in one.param_groups] for one in optimizers]
    length = max(1, training.steps // training.epochs)
    ends = {
        round(training.steps * (epoch + 1) / training.epochs) - 1
        for epoch in range(training.epochs)
    }
    losses: list[float] = []
    watcher.begin(training.model, optimizers, training.steps, folder)
    for step in range(training.steps):
        for change in training.before_step:
            change(step)
        factor = training.schedule(step / max(training.steps - 1, 1))
        for one, rates in zip(optimizers, base, strict=True):
            for group, rate in zip(one.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        loss = _step(training, optimizers[step % len(optimizers)], step, watcher)
        losses.append(float(loss.detach()))
        if step in ends:
            recent = losses[-length:]
            watcher.end_epoch(sum(recent) / len(recent), held_out_loss(training))
    return losses, watcher.end()


def _step(
    training: Training, optimizer: torch.optim.Optimizer, step: int, watcher: Watcher
) -> Tensor:
    inputs, targets = training.batch_of(step)
    loss = (
        training.loss_of(inputs, targets)
        if training.terms is None
        else summed(training.terms_of(inputs, targets))
    )
    (training.sign * loss).backward()
    if training.clip is not None:
        nn.utils.clip_grad_norm_(training.model.parameters(), training.clip)
    if training.zero_before_step:
        training.model.zero_grad(set_to_none=False)
    watcher.before_step(step, loss)
    optimizer.step()
    watcher.after_step(step, loss)
    if training.zero_grad:
        training.model.zero_grad()
    return loss
