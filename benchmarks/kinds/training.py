"""A training of some kind of model, and the loop that runs it under the tracer."""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import gradflow
from gradflow.data import Batch as ImageBatch
from gradflow.probes.execution import copy_without_hooks
from gradflow.probes.gradients.noise_scale import noise_scale
from gradflow.probes.gradients.shattering import shattering
from gradflow.probes.probe import Subject, Tables

Batch = tuple[Tensor, Tensor]
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
Terms = dict[str, tuple[float, Tensor]]
FIRST_PROBE, PROBES = 100_000, 3  # numbers of batches that no training takes


@dataclass
class Training:
    """A model with its data, loss and optimizer; faults are planted by changing its fields.

    Fields:
        kind: the kind of model, a key of `healthy.KINDS`.
        model: ready to train.
        batch: inputs and targets of step n, the same at every call.
        loss: of the model on a batch.
        rule, lr, decay, momentum: the optimizer, one of `RULES`.
        steps: how many to take.
        head: name of the module that turns features into outputs.
        learns: the healthy training's loss at the end is at most this share of that at the start.
        held: as `batch`, of held-out data; None without.
        classes: of a classification by cross-entropy; otherwise 0.
        schedule: factor of the learning rate as a function of the share of steps done.
        clip: the largest norm of all gradients; None without clipping.
        autocast: the type of autocast; None without.
        epochs: the steps are divided into as many.
        turns: names of modules that have an optimizer each and take turns; empty for one optimizer.
        excluded: parameters that no optimizer is given, by name.
        words: what was drawn, in words.
        measure: a number that falls as the model learns; None for the loss on other batches.
        before_step: called with the number of each step before it.
        transforms: functions of (step, inputs, targets) that change a batch.
        zero_grad: whether gradients are zeroed after a step.
        sign: -1 to climb.
        zero_before_step: whether they are zeroed between the backward pass and the step.
        terms: weight and value of each term of the loss, for `Tracer.terms`; None for one term.
        tracer_options: further arguments of the tracer.
        probes: names of those that run at the end, of classifiers: noise_scale, shattering.
        pool: all that it is trained on, for the probes; None for 24 of its batches.
    """

    kind: str
    model: nn.Module
    batch: Callable[[int], Batch]
    loss: Loss
    rule: str
    lr: float
    steps: int
    head: str
    learns: float = 0.8
    decay: float = 0.0
    momentum: float = 0.9
    held: Callable[[int], Batch] | None = None
    classes: int = 0
    schedule: Callable[[float], float] = lambda _: 1.0
    clip: float | None = None
    autocast: torch.dtype | None = None
    epochs: int = 1
    turns: tuple[str, ...] = ()
    excluded: set[str] = field(default_factory=set)
    words: list[str] = field(default_factory=list)
    measure: Callable[[], float] | None = None
    before_step: list[Callable[[int], None]] = field(default_factory=list)
    transforms: list[Callable[[int, Tensor, Tensor], Batch]] = field(default_factory=list)
    zero_grad: bool = True
    sign: float = 1.0
    zero_before_step: bool = False
    terms: Callable[[nn.Module, Tensor, Tensor], Terms] | None = None
    tracer_options: dict[str, Any] = field(default_factory=dict)
    probes: tuple[str, ...] = ()
    pool: Batch | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The type of the model's first floating-point parameter."""
        return next(one.dtype for one in self.model.parameters() if one.is_floating_point())

    def batch_of(self, step: int) -> Batch:
        """The batch of `step` as the model is given it: changed by faults, in the model's type."""
        inputs, targets = self.batch(step)
        for transform in self.transforms:
            inputs, targets = transform(step, inputs, targets)
        return (inputs.to(self.dtype) if inputs.is_floating_point() else inputs), targets

    def loss_of(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The loss on a batch, under autocast where that is on."""
        with torch.autocast("cpu", self.autocast, enabled=self.autocast is not None):
            return self.loss(self.model, inputs, targets)

    def terms_of(self, inputs: Tensor, targets: Tensor) -> Terms:
        """The terms of the loss on a batch likewise."""
        assert self.terms is not None
        with torch.autocast("cpu", self.autocast, enabled=self.autocast is not None):
            return self.terms(self.model, inputs, targets)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """One optimizer, or one for each of `turns`."""
        parts = [f"{name}." for name in self.turns] or [""]
        named = [(name, one) for name, one in self.model.named_parameters() if one.requires_grad]
        return [
            RULES[self.rule](
                [p for n, p in named if n.startswith(part) and n not in self.excluded], self
            )
            for part in parts
        ]


RULES: dict[str, Callable[[list[nn.Parameter], Training], torch.optim.Optimizer]] = {
    "SGD": lambda weights, one: torch.optim.SGD(weights, one.lr, weight_decay=one.decay),
    "momentum": lambda weights, one: torch.optim.SGD(
        weights, one.lr, momentum=one.momentum, weight_decay=one.decay
    ),
    "Adam": lambda weights, one: torch.optim.Adam(weights, one.lr, weight_decay=one.decay),
    "AdamW": lambda weights, one: torch.optim.AdamW(weights, one.lr, weight_decay=one.decay),
    "GAN's Adam": lambda weights, one: torch.optim.Adam(weights, one.lr, betas=(0.5, 0.99)),
}


def summed(terms: Terms) -> Tensor:
    """The loss that weighted terms add up to."""
    return torch.stack([weight * term for weight, term in terms.values()]).sum()


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put buffers, modes and the random state back as they were."""
    buffers = {name: one.clone() for name, one in model.named_buffers()}
    modes = {name: module.training for name, module in model.named_modules()}
    with torch.random.fork_rng():
        yield
    for name, one in model.named_buffers():
        one.data.copy_(buffers[name])
    for name, module in model.named_modules():
        module.training = modes[name]


def loss_on_others(training: Training, model: nn.Module | None = None) -> float:
    """Mean loss on batches that no step takes, in the mode in which the model is."""
    model = model or training.model
    batches = [training.batch(FIRST_PROBE + index) for index in range(PROBES)]
    total = 0.0
    with untouched(model), torch.no_grad():
        for inputs, targets in batches:
            given = inputs.to(training.dtype) if inputs.is_floating_point() else inputs
            total += float(training.loss(model, given, targets)) / PROBES
    return total


def held_out_loss(training: Training) -> float | None:
    """Mean loss on held-out data in evaluation mode; None without such data."""
    if training.held is None:
        return None
    with untouched(training.model), torch.no_grad():
        training.model.eval()
        total = 0.0
        for index in range(2):
            inputs, targets = training.held(index)
            given = inputs.to(training.dtype) if inputs.is_floating_point() else inputs
            total += float(training.loss(training.model, given, targets)) / 2
    return total


@dataclass(frozen=True)
class Outcome:
    """What a training did, by measures of this benchmark's own.

    Fields:
        before, after: `Training.measure`, or the loss on other batches, at start and end.
        losses: those of the steps.
        held: the loss on held-out data at the end of each epoch; empty without such data.
    """

    before: float
    after: float
    losses: list[float]
    held: list[float]

    @property
    def share(self) -> float:
        """What is left of the measure at the end; infinite if it cannot be said."""
        share = self.after / self.before if self.before else float("inf")
        return float("inf") if math.isnan(share) else share


def train(training: Training, folder: Path) -> Outcome:
    """Train under the tracer, which writes into `folder`."""
    measure = training.measure or (lambda: loss_on_others(training))
    before = measure()
    optimizers = training.optimizers()
    base = [[group["lr"] for group in one.param_groups] for one in optimizers]
    losses: list[float] = []
    held: list[float] = []
    ends = {
        round(training.steps * (epoch + 1) / training.epochs) - 1
        for epoch in range(training.epochs)
    }
    followed = optimizers if len(optimizers) > 1 else optimizers[0]
    options = training.tracer_options
    with (
        warnings.catch_warnings(),
        gradflow.Tracer(training.model, folder, optimizer=followed, **options) as tracer,
    ):
        warnings.simplefilter("ignore")
        for step in range(training.steps):
            for change in training.before_step:
                change(step)
            _set_rates(optimizers, base, training.schedule(step / max(training.steps - 1, 1)))
            loss = _step(training, optimizers[step % len(optimizers)], step, tracer)
            losses.append(float(loss.detach()))
            if step in ends:
                recent = losses[-max(1, training.steps // training.epochs) :]
                now = held_out_loss(training)
                scalars = {"train_loss": sum(recent) / len(recent)}
                if now is not None:
                    held.append(now)
                    scalars |= {"val_loss": now}
                if training.probes and step == training.steps - 1:
                    probed(training, tracer)
                tracer.end_epoch(**scalars)
    return Outcome(before, measure(), losses, held)


def subject_of(training: Training) -> Subject:
    """What the probes get: the model, and what it is trained on."""
    batches = [training.pool] if training.pool else map(training.batch_of, range(24))
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    whole = ImageBatch(inputs.float(), targets, torch.arange(len(targets)))
    few = ImageBatch(whole.images[:24], targets[:24], whole.indices[:24])
    return Subject(
        training.model, training.epochs, True, False, None, few, lambda: [whole], lambda: [whole], 0
    )


# With more draws and points than in a training of images: these would leave many small ones open.
MEASURED: dict[str, Callable[[Subject], Tables]] = {
    "noise_scale": lambda subject: noise_scale(subject, draws=16, large_batch=512),
    "shattering": lambda subject: shattering(subject, points=128, lags=4),
}


def probed(training: Training, tracer: gradflow.Tracer) -> None:
    """Run the probes at the end of a training."""
    subject = replace(subject_of(training), model=copy_without_hooks(training.model).float())
    for name in training.probes:
        tables = MEASURED[name](subject)
        for table, columns in tables.items():
            tracer.write_table(table, columns)


def _set_rates(
    optimizers: list[torch.optim.Optimizer], base: list[list[float]], factor: float
) -> None:
    for one, rates in zip(optimizers, base, strict=True):
        for group, rate in zip(one.param_groups, rates, strict=True):
            group["lr"] = rate * factor


def _step(
    training: Training, optimizer: torch.optim.Optimizer, step: int, tracer: gradflow.Tracer
) -> Tensor:
    inputs, targets = training.batch_of(step)
    if training.terms is not None and hasattr(tracer, "terms"):
        terms = training.terms_of(inputs, targets)
        tracer.terms(terms)
        loss = summed(terms)
    else:
        loss = training.loss_of(inputs, targets)
    tracer.log(loss=loss)
    (training.sign * loss).backward()
    if training.clip is not None:
        nn.utils.clip_grad_norm_(training.model.parameters(), training.clip)
    if training.zero_before_step:
        training.model.zero_grad(set_to_none=False)
    optimizer.step()
    if training.zero_grad:
        training.model.zero_grad()
    return loss
