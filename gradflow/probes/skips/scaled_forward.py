"""Runs a network with scaled skips, and re-estimates the batch-norm statistics for each scaling.

The layers before the first scaled skip compute the same for every scaling. So they run once per
batch, and each scaling runs only the rest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gradflow.probes.network.blocks import Block, Rewiring
from gradflow.probes.network.partial_forward import forward_keeping_inputs, forward_rewired
from gradflow.recalibration.estimation import batch_norms

# Of each batch norm: running mean [C], running variance [C], batches tracked [].
Statistics = list[tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class SkipScaling:
    """The skips of `blocks` are multiplied by `scale`. Without blocks, the unchanged network."""

    scale: float
    blocks: tuple[Block, ...]

    @property
    def rewirings(self) -> dict[Block, Rewiring]:
        """What the blocks compute with this scaling."""
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
    """Yield each scaling, in the given order, with the output of `model` under it.

    Args:
        model: in evaluation mode, or with its batch norms in training mode.
        blocks: all blocks of `model`, in order; the input of each is the output of the one before.
        scalings: may include `UNSCALED`, the unchanged network.
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
    """For `UNSCALED` and each scaling, the statistics that `recalibrated` would estimate under it.

    Call it within `recalibrated(model, ())`, which restores `model` afterwards.
    """
    norms = list(batch_norms(model).values())
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
    # Layers before the first scaled skip did not run for this scaling; they use the statistics of
    # the unchanged network.
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
    """Make the batch norms of `model` use `statistics`, and update them in training mode."""
    for norm, (mean, variance, batches) in zip(
        batch_norms(model).values(), statistics, strict=True
    ):
        norm.running_mean, norm.running_var, norm.num_batches_tracked = mean, variance, batches
