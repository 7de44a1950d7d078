"""Skips multiplied by a scale, and the batch-norm statistics that belong to each such scaling.

What comes before the first scaled skip is the network as it is, for every scaling: it runs once a
batch, and each scaling runs on from there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gradflow.probes.network.blocks import Block, Rewiring
from gradflow.probes.network.partial_forward import forward_keeping_inputs, forward_rewired
from gradflow.probes.network.recalibration import batch_norms

# Of each batch norm: running mean [C], running variance [C], batches tracked [].
Statistics = list[tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class SkipScaling:
    """The skips of `blocks` multiplied by `scale`; without blocks, the network itself."""

    scale: float
    blocks: tuple[Block, ...]

    @property
    def rewirings(self) -> dict[Block, Rewiring]:
        """What the blocks compute at this scaling."""
        return dict.fromkeys(self.blocks, partial(_scaled, self.scale))


UNSCALED = SkipScaling(1.0, ())


def _scaled(scale: float, block: Block, x: Tensor) -> Tensor:
    return block.rectify(block.branch(x) + block.skip(x) * scale)


def forward_scaled(
    model: nn.Module,
    blocks: Sequence[Block],
    scalings: Iterable[SkipScaling],
    images: Tensor,
    statistics: dict[SkipScaling, Statistics] | None = None,
) -> Iterable[tuple[SkipScaling, Tensor]]:
    """Each scaling, in the order given, with the output of `model` at it.

    Args:
        model: in evaluation mode, or with its batch norms in training mode.
        blocks: all blocks of `model`, in order, each reading what the one before it made.
        scalings: the network itself among them or not.
        images: [N, 3, H, W].
        statistics: those that each scaling and `UNSCALED` use, and update in training mode; without
            them, `model`'s own.
    """
    if statistics is not None:
        use_statistics(model, statistics[UNSCALED])
    intact, inputs = forward_keeping_inputs(model, blocks, images)
    for scaling in scalings:
        if not scaling.blocks:
            yield scaling, intact
            continue
        if statistics is not None:
            use_statistics(model, statistics[scaling])
        yield scaling, forward_rewired(model, blocks, scaling.rewirings, images, inputs)


@torch.no_grad()
def re_estimate_statistics(
    model: nn.Module,
    blocks: Sequence[Block],
    scalings: Iterable[SkipScaling],
    batches: Iterable[Tensor],
) -> dict[SkipScaling, Statistics]:
    """For `UNSCALED` and each scaling the statistics that `recalibrated` would re-estimate at it.

    `model` must be within `recalibrated(model, ())`, which restores it afterwards.
    """
    norms = batch_norms(model)
    statistics: dict[SkipScaling, Statistics] = {
        scaling: [_statistics_of(norm) for norm in norms] for scaling in {UNSCALED, *scalings}
    }
    for norm in norms:
        norm.train()
    for images in batches:
        for _ in forward_scaled(model, blocks, statistics, images, statistics):
            pass
    for norm in norms:
        norm.eval()
    # Before its first scaled skip a scaling never ran: the network's own statistics hold there.
    return {
        scaling: [
            own if own[2] else intact
            for own, intact in zip(kept, statistics[UNSCALED], strict=True)
        ]
        for scaling, kept in statistics.items()
    }


def _statistics_of(norm: _BatchNorm) -> tuple[Tensor, Tensor, Tensor]:
    mean, variance, batches = (buffer.clone() for buffer in norm.buffers())
    return mean, variance, batches


def use_statistics(model: nn.Module, statistics: Statistics) -> None:
    """Let the batch norms of `model` use `statistics`, and update them in training mode."""
    for norm, (mean, variance, batches) in zip(batch_norms(model), statistics, strict=True):
        norm.running_mean, norm.running_var, norm.num_batches_tracked = mean, variance, batches
