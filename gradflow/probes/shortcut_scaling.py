"""Multiplies shortcuts by alpha in [0, 1], weights as they are: from the residual net to none.

A dose-response of a trained network to its shortcuts, forward (accuracy) and backward (gradient
norms). Batch-norm statistics belong to the activations of alpha = 1; so each dose is also measured
with statistics re-estimated at that dose. A network trained at a dose is `--shortcut-scale`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow.data import Batch
from gradflow.probes.batchnorm_recalibration import recalibrated
from gradflow.probes.blocks import Block, Rewiring, blocks, rewired
from gradflow.probes.partial_runs import run_keeping_inputs, run_rewired
from gradflow.probes.probe import NotMeasurableError, Probe, Subject, Tables, When

ALL = "all"


@dataclass(frozen=True)
class Dose:
    """The shortcuts of `blocks` multiplied by `scale`; without blocks, the network itself."""

    scale: float
    blocks: tuple[Block, ...]

    @property
    def rewirings(self) -> dict[Block, Rewiring]:
        """What the blocks compute at this dose."""
        return dict.fromkeys(self.blocks, partial(_scaled, self.scale))


@dataclass(frozen=True)
class Response:
    """What is measured at a dose with re-estimated statistics; see the table for each."""

    correct: int
    loss: float
    first_gradient_norm: float
    last_gradient_norm: float


def measure(
    subject: Subject,
    scales: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    stage_scales: Sequence[float] = (0.0, 1.0),
    block_scales: Sequence[float] = (0.0, 1.0),
    recalibration_batches: int = 4,
) -> Tables:
    """Scale the shortcuts of all blocks, of each stage and of each block.

    Re-estimated statistics are the average over the first `recalibration_batches` of the training
    batches. Single blocks are measured with these alone, which saves a classification for each.
    The defaults take about as long as one epoch of training.

    Args:
        subject: classifies its validation images; gradients are those of its `batch`.
        scales, stage_scales, block_scales: alpha for all blocks, for a stage, for a single block.
        recalibration_batches: training batches to re-estimate the statistics on.

    Returns: the table `shortcut_scaling`.

    Raises `NotMeasurableError` where the network has no shortcuts.
    """
    found = [block for block in blocks(subject.model) if block.residual]
    if not found:
        raise NotMeasurableError("the network has no residual blocks, so no shortcut to scale")
    subject.model.requires_grad_(False)
    groups = {ALL: (tuple(found), scales)}
    groups |= {name: (stage, stage_scales) for name, stage in _stages(found).items()}
    groups |= {block.name: ((block,), block_scales) for block in found}
    rows = [
        (scope, Dose(scale, members if scale != 1 else ()))
        for scope, (members, grid) in groups.items()
        for scale in grid
    ]
    single = {block.name for block in found}
    wide = [dose for scope, dose in rows if scope not in single]
    images, correct = _count_correct(subject, found, wide)
    calibration = [batch.images for batch in islice(subject.training(), recalibration_batches)]
    # The same dose, such as that of the network itself, is measured once.
    respond = cache(partial(_respond, subject, found, calibration))
    responses = [respond(dose) for _, dose in rows]
    return {
        "shortcut_scaling": {
            "scope": [scope for scope, _ in rows],
            "scale": [dose.scale for _, dose in rows],
            "images": [images] * len(rows),
            "correct": [correct.get(dose) for _, dose in rows],
            "correct_recalibrated": [one.correct for one in responses],
            "loss": [one.loss for one in responses],
            "first_gradient_norm": [one.first_gradient_norm for one in responses],
            "last_gradient_norm": [one.last_gradient_norm for one in responses],
        }
    }


def _stages(found: Iterable[Block]) -> dict[str, tuple[Block, ...]]:
    """The blocks of each module that holds several, such as layer1."""
    stages: dict[str, tuple[Block, ...]] = {}
    for block in found:
        parent = block.name.rpartition(".")[0]
        stages[parent] = (*stages.get(parent, ()), block)
    stages.pop("", None)
    return stages


def _scaled(scale: float, block: Block, x: Tensor) -> Tensor:
    return block.rectify(block.branch(x) + block.skip(x) * scale)


@torch.no_grad()
def _count_correct(
    subject: Subject, found: Sequence[Block], doses: Iterable[Dose]
) -> tuple[int, dict[Dose, int]]:
    """The validation images, and how many are predicted rightly at each dose."""
    images, correct = 0, dict.fromkeys(doses, 0)
    for batch in subject.validation():
        intact, inputs = run_keeping_inputs(subject.model, found, batch.images)
        images += len(batch.targets)
        for dose in correct:
            logits = intact
            if dose.blocks:
                logits = run_rewired(subject.model, found, dose.rewirings, batch.images, inputs)
            correct[dose] += _correct(logits, batch)
    return images, correct


def _respond(
    subject: Subject, found: Sequence[Block], calibration: Sequence[Tensor], dose: Dose
) -> Response:
    with rewired(dose.rewirings), recalibrated(subject.model, calibration):
        correct, images, loss = 0, 0, 0.0
        with torch.no_grad():
            for batch in subject.validation():
                logits = subject.model(batch.images)
                correct += _correct(logits, batch)
                images += len(batch.targets)
                loss += float(F.cross_entropy(logits, batch.targets, reduction="sum"))
        first, last = _gradient_norms(subject.model, found, subject.batch)
    return Response(correct, loss / images, first, last)


def _gradient_norms(model: nn.Module, found: Sequence[Block], batch: Batch) -> tuple[float, float]:
    """|dL/dx| at the first block's input and at the last block's output."""
    ends: list[Tensor] = []

    def enter(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        ends.append(args[0].detach().requires_grad_())
        return (ends[0],)

    def leave(_: nn.Module, __: tuple[Tensor], output: Tensor) -> None:
        ends.append(output)

    entering = found[0].module.register_forward_pre_hook(enter)
    leaving = found[-1].module.register_forward_hook(leave)
    try:
        loss = F.cross_entropy(model(batch.images), batch.targets)
    finally:
        entering.remove()
        leaving.remove()
    first, last = torch.autograd.grad(loss, ends)
    # On the CPU: not every device has double precision.
    return float(first.cpu().double().norm()), float(last.cpu().double().norm())


def _correct(logits: Tensor, batch: Batch) -> int:
    return int((logits.argmax(1) == batch.targets).sum())


PROBE = Probe("shortcut_scaling", ("shortcut_scaling",), When.LAST, measure)
