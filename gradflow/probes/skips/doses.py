"""Skips multiplied by a scale, and the batch-norm statistics that belong to each such dose.

What comes before the first scaled skip is the network as it is, for every dose: it runs once a
batch, and each dose runs on from there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gradflow.probes.network.blocks import Block, Rewiring
from gradflow.probes.network.partial_runs import run_keeping_inputs, run_rewired
from gradflow.probes.network.recalibration import batch_norms

# Of each batch norm: running mean [C], running variance [C], batches tracked [].
Statistics = list[tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class Dose:
    """The skips of `blocks` multiplied by `scale`; without blocks, the network itself."""

    scale: float
    blocks: tuple[Block, ...]

    @property
    def rewirings(self) -> dict[Block, Rewiring]:
        """What the blocks compute at this dose."""
        return dict.fromkeys(self.blocks, partial(_scaled, self.scale))


IDENTITY = Dose(1.0, ())


def _scaled(scale: float, block: Block, x: Tensor) -> Tensor:
    return block.rectify(block.branch(x) + block.skip(x) * scale)


def run_doses(
    model: nn.Module,
    found: Sequence[Block],
    doses: Iterable[Dose],
    images: Tensor,
    statistics: dict[Dose, Statistics] | None = None,
) -> Iterable[tuple[Dose, Tensor]]:
    """Each dose, in the order given, with the output of `model` at it.

    Args:
        model: in evaluation mode, or with its batch norms in training mode.
        found: all blocks of `model`, in order, each reading what the one before it made.
        doses: the network itself among them or not.
        images: [N, 3, H, W].
        statistics: those that each dose and `IDENTITY` use, and update in training mode; without
            them, `model`'s own.
    """
    if statistics is not None:
        use(model, statistics[IDENTITY])
    intact, inputs = run_keeping_inputs(model, found, images)
    for dose in doses:
        if not dose.blocks:
            yield dose, intact
            continue
        if statistics is not None:
            use(model, statistics[dose])
        yield dose, run_rewired(model, found, dose.rewirings, images, inputs)


@torch.no_grad()
def re_estimate(
    model: nn.Module, found: Sequence[Block], doses: Iterable[Dose], batches: Iterable[Tensor]
) -> dict[Dose, Statistics]:
    """For `IDENTITY` and each dose the statistics that `recalibrated` would re-estimate at it.

    `model` must be within `recalibrated(model, ())`, which restores it afterwards.
    """
    norms = batch_norms(model)
    statistics: dict[Dose, Statistics] = {
        dose: [_statistics_of(norm) for norm in norms] for dose in {IDENTITY, *doses}
    }
    for norm in norms:
        norm.train()
    for images in batches:
        for _ in run_doses(model, found, statistics, images, statistics):
            pass
    for norm in norms:
        norm.eval()
    # Before its first scaled skip a dose never ran: the network's own statistics hold there.
    return {
        dose: [
            own if own[2] else intact
            for own, intact in zip(kept, statistics[IDENTITY], strict=True)
        ]
        for dose, kept in statistics.items()
    }


def _statistics_of(norm: _BatchNorm) -> tuple[Tensor, Tensor, Tensor]:
    mean, variance, batches = (buffer.clone() for buffer in norm.buffers())
    return mean, variance, batches


def use(model: nn.Module, statistics: Statistics) -> None:
    """Let the batch norms of `model` use `statistics`, and update them in training mode."""
    for norm, (mean, variance, batches) in zip(batch_norms(model), statistics, strict=True):
        norm.running_mean, norm.running_var, norm.num_batches_tracked = mean, variance, batches
