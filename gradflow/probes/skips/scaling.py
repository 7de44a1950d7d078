"""Multiplies skips by alpha in [0, 1], weights as they are: from the residual net to none.

A dose-response of a trained network to its skips, forward (accuracy) and backward (gradient
norms). Batch-norm statistics belong to the activations of alpha = 1; so each dose is also measured
with statistics re-estimated at that dose. A network trained at a dose is `--skip-scale`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow.data import Batch
from gradflow.probes.network.blocks import Block, blocks, rewired
from gradflow.probes.network.recalibration import recalibrated
from gradflow.probes.probe import NotMeasurableError, Probe, Subject, Tables, When
from gradflow.probes.skips.doses import IDENTITY, Dose, re_estimate, run_doses, use

ALL = "all"


@dataclass
class Response:
    """What is measured at a dose with re-estimated statistics; see the table for each.

    `loss` is the sum over the validation images.
    """

    correct: int = 0
    loss: float = 0.0
    first_gradient_norm: float = 0.0
    last_gradient_norm: float = 0.0


def measure(
    subject: Subject,
    scales: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    stage_scales: Sequence[float] = (0.0, 1.0),
    block_scales: Sequence[float] = (0.0, 1.0),
    recalibration_batches: int = 4,
) -> Tables:
    """Scale the skips of all blocks, of each stage and of each block.

    Re-estimated statistics are the average over the first `recalibration_batches` of the training
    batches. Single blocks are measured with these alone, which saves a classification for each.
    The defaults take about as long as one epoch of training.

    Args:
        subject: classifies its validation images; gradients are those of its `batch`.
        scales, stage_scales, block_scales: alpha for all blocks, for a stage, for a single block.
        recalibration_batches: training batches to re-estimate the statistics on.

    Returns: the table `skip_scaling`.

    Raises `NotMeasurableError` where the network has no skips.
    """
    found = [block for block in blocks(subject.model) if block.residual]
    if not found:
        raise NotMeasurableError("the network has no residual blocks, so no skip to scale")
    subject.model.requires_grad_(False)
    wide = _rows({ALL: tuple(found)}, scales) + _rows(_stages(found), stage_scales)
    rows = wide + _rows({block.name: (block,) for block in found}, block_scales)
    # The same dose, such as that of the network itself, is measured once.
    images, correct = _count_correct(subject, found, dict.fromkeys(dose for _, dose in wide))
    batches = [batch.images for batch in islice(subject.training(), recalibration_batches)]
    responses = _respond(subject, found, dict.fromkeys(dose for _, dose in rows), batches)
    return {
        "skip_scaling": {
            "scope": [scope for scope, _ in rows],
            "scale": [dose.scale for _, dose in rows],
            "images": [images] * len(rows),
            "correct": [correct.get(dose) for _, dose in rows],
            "correct_recalibrated": [responses[dose].correct for _, dose in rows],
            "loss": [responses[dose].loss / images for _, dose in rows],
            "first_gradient_norm": [responses[dose].first_gradient_norm for _, dose in rows],
            "last_gradient_norm": [responses[dose].last_gradient_norm for _, dose in rows],
        }
    }


def _rows(
    scopes: Mapping[str, tuple[Block, ...]], scales: Sequence[float]
) -> list[tuple[str, Dose]]:
    return [
        (scope, Dose(scale, members) if scale != 1 else IDENTITY)
        for scope, members in scopes.items()
        for scale in scales
    ]


def _stages(found: Iterable[Block]) -> dict[str, tuple[Block, ...]]:
    """The blocks of each module that holds some, such as layer1, but for the network itself."""
    stages: dict[str, tuple[Block, ...]] = {}
    for block in found:
        parent = block.name.rpartition(".")[0]
        stages[parent] = (*stages.get(parent, ()), block)
    stages.pop("", None)
    return stages


@torch.no_grad()
def _count_correct(
    subject: Subject, found: Sequence[Block], doses: Iterable[Dose]
) -> tuple[int, dict[Dose, int]]:
    """The validation images, and how many are predicted rightly at each dose."""
    images, correct = 0, dict.fromkeys(doses, 0)
    for batch in subject.validation():
        images += len(batch.targets)
        for dose, logits in run_doses(subject.model, found, correct, batch.images):
            correct[dose] += _correct(logits, batch)
    return images, correct


def _respond(
    subject: Subject, found: Sequence[Block], doses: Iterable[Dose], batches: Iterable[Tensor]
) -> dict[Dose, Response]:
    """What is measured with statistics re-estimated on `batches`, [N, 3, H, W] each."""
    model, responses = subject.model, {dose: Response() for dose in doses}
    with recalibrated(model, ()):
        statistics = re_estimate(model, found, responses, batches)
        with torch.no_grad():
            for batch in subject.validation():
                for dose, logits in run_doses(model, found, responses, batch.images, statistics):
                    responses[dose].correct += _correct(logits, batch)
                    responses[dose].loss += float(
                        F.cross_entropy(logits, batch.targets, reduction="sum")
                    )
        for dose, response in responses.items():
            use(model, statistics[dose])
            with rewired(dose.rewirings):
                response.first_gradient_norm, response.last_gradient_norm = _gradient_norms(
                    model, found, subject.batch
                )
    return responses


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


# Single blocks take twice as long as all else together: too long for the end of a training.
PROBE = Probe("skip_scaling", ("skip_scaling",), When.LAST, partial(measure, block_scales=()))
