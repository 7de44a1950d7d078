"""The probe `skip_scaling`: multiplies the skips of a trained network by alpha in [0, 1].

It measures the dose-response of the network to its skips: forward (accuracy) and backward (gradient
norms). The running batch-norm statistics belong to alpha = 1, so each scaling is also measured with
statistics re-estimated for it. To train a network with scaled skips, use `--skip-scale`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow.data import Batch
from gradflow.probes.network.blocks import Block, find_blocks, rewired
from gradflow.probes.probe import NotMeasurableError, Probe, Subject, Tables, When
from gradflow.probes.skips.scaled_forward import (
    UNSCALED,
    SkipScaling,
    forward_scaled,
    re_estimate_statistics,
    use_statistics,
)
from gradflow.recalibration.estimation import recalibrated

ALL = "all"


@dataclass
class ScalingResponse:
    """The values measured under a scaling with re-estimated statistics; see `skip_scaling`.

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

    Re-estimated statistics are averages over the first `recalibration_batches` training batches.
    Single blocks are measured only with these, not with running statistics, to save time. The
    defaults take about as long as one epoch of training.

    Args:
        subject: accuracies are those of its validation images, gradients those of its `batch`.
        scales, stage_scales, block_scales: values of alpha for all blocks together, for each
            stage, and for each single block.
        recalibration_batches: number of training batches for re-estimating the statistics.

    Returns: the table `skip_scaling`.

    Raises `NotMeasurableError` if the network has no skips.
    """
    blocks = [block for block in find_blocks(subject.model) if block.residual]
    if not blocks:
        raise NotMeasurableError("the network has no residual blocks, so it has no skip to scale")
    subject.model.requires_grad_(False)
    wide = _rows({ALL: tuple(blocks)}, scales) + _rows(_stages(blocks), stage_scales)
    rows = wide + _rows({block.name: (block,) for block in blocks}, block_scales)
    # Equal scalings, e.g. `UNSCALED`, are measured only once.
    images, correct = _count_correct(subject, blocks, dict.fromkeys(scaling for _, scaling in wide))
    batches = [batch.images for batch in islice(subject.training_batches(), recalibration_batches)]
    responses = _measure_responses(
        subject, blocks, dict.fromkeys(scaling for _, scaling in rows), batches
    )
    return {
        "skip_scaling": {
            "scope": [scope for scope, _ in rows],
            "scale": [scaling.scale for _, scaling in rows],
            "images": [images] * len(rows),
            "correct": [correct.get(scaling) for _, scaling in rows],
            "correct_recalibrated": [responses[scaling].correct for _, scaling in rows],
            "loss": [responses[scaling].loss / images for _, scaling in rows],
            "first_gradient_norm": [responses[scaling].first_gradient_norm for _, scaling in rows],
            "last_gradient_norm": [responses[scaling].last_gradient_norm for _, scaling in rows],
        }
    }


def _rows(
    scopes: Mapping[str, tuple[Block, ...]], scales: Sequence[float]
) -> list[tuple[str, SkipScaling]]:
    return [
        (scope, SkipScaling(scale, members) if scale != 1 else UNSCALED)
        for scope, members in scopes.items()
        for scale in scales
    ]


def _stages(blocks: Iterable[Block]) -> dict[str, tuple[Block, ...]]:
    """The blocks of each stage: each module, e.g. layer1, that directly holds blocks."""
    stages: dict[str, tuple[Block, ...]] = {}
    for block in blocks:
        parent = block.name.rpartition(".")[0]
        stages[parent] = (*stages.get(parent, ()), block)
    stages.pop("", None)
    return stages


@torch.no_grad()
def _count_correct(
    subject: Subject, blocks: Sequence[Block], scalings: Iterable[SkipScaling]
) -> tuple[int, dict[SkipScaling, int]]:
    """The number of validation images, and how many are classified correctly under each scaling."""
    images, correct = 0, dict.fromkeys(scalings, 0)
    for batch in subject.validation_batches():
        images += len(batch.targets)
        for scaling, logits in forward_scaled(subject.model, blocks, correct, batch.images):
            correct[scaling] += _correct(logits, batch)
    return images, correct


def _measure_responses(
    subject: Subject,
    blocks: Sequence[Block],
    scalings: Iterable[SkipScaling],
    batches: Iterable[Tensor],
) -> dict[SkipScaling, ScalingResponse]:
    """Measure each scaling with statistics re-estimated on `batches`, [N, 3, H, W] each."""
    model, responses = subject.model, {scaling: ScalingResponse() for scaling in scalings}
    with recalibrated(model, ()):
        statistics = re_estimate_statistics(model, blocks, responses, batches)
        with torch.no_grad():
            for batch in subject.validation_batches():
                for scaling, logits in forward_scaled(
                    model, blocks, responses, batch.images, statistics
                ):
                    responses[scaling].correct += _correct(logits, batch)
                    responses[scaling].loss += float(
                        F.cross_entropy(logits, batch.targets, reduction="sum")
                    )
        for scaling, response in responses.items():
            use_statistics(model, statistics[scaling])
            with rewired(scaling.rewirings):
                response.first_gradient_norm, response.last_gradient_norm = _gradient_norms(
                    model, blocks, subject.batch
                )
    return responses


def _gradient_norms(model: nn.Module, blocks: Sequence[Block], batch: Batch) -> tuple[float, float]:
    """|dL/dx| at the first block's input and at the last block's output."""
    ends: list[Tensor] = []

    def enter(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        ends.append(args[0].detach().requires_grad_())
        return (ends[0],)

    def leave(_: nn.Module, __: tuple[Tensor], output: Tensor) -> None:
        ends.append(output)

    entering = blocks[0].module.register_forward_pre_hook(enter)
    leaving = blocks[-1].module.register_forward_hook(leave)
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


# Single blocks are left out: they take twice as long as all other scalings together.
PROBE = Probe("skip_scaling", ("skip_scaling",), When.LAST, partial(measure, block_scales=()))
