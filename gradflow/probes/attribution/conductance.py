"""The conductance of skip and branch: how much each contributes to a logit, for each block.

The conductance of h along the straight path x(a) = x' + a (x - x') from a baseline x' to an image x
is the integral over a from 0 to 1 of <df/dh, dh/da>, f the logit (Dhamdhere et al. 2018, How
important is a neuron?, equation 3). A residual addition cuts the network in two: the logit depends
on the image only through skip and branch, so their conductances add up to f(x) - f(x').

captum's `LayerConductance` needs one pass per summand; here one pass serves all blocks. The sum
over the steps is the trapezoid rule for the gradient times the exact difference of h. It has no
error between two points if the network is linear between them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradflow.probes.network.blocks import Block, Rewiring, find_blocks, rewired

MAX_POINTS_PER_PASS = 96  # more points need more memory and save no time


@dataclass(frozen=True, eq=False)
class Conductance:
    """The conductances of a residual block, for N images.

    Fields:
        block: qualified module name.
        skip, branch: float64 [N] on the CPU, in logits.
        difference: float64 [N], the logit of the image minus that of the baseline. It equals
            skip + branch up to the error of the sum over steps.
    """

    block: str
    skip: Tensor
    branch: Tensor
    difference: Tensor


def conductances(
    model: nn.Module, images: Tensor, baseline: Tensor, targets: Tensor, steps: int
) -> list[Conductance]:
    """The conductances of every residual block of `model`, in order.

    Args:
        model: in evaluation mode, returns logits [N, classes].
        images: [N, 3, H, W].
        baseline: of the same shape.
        targets: int64 [N], the class whose logit is attributed, for each image.
        steps: number of terms of the sum; the network runs at `steps` + 1 points per image.
    """
    images_per_pass = max(MAX_POINTS_PER_PASS // (steps + 1), 1)
    parts = [
        _conductances_in_one_pass(model, *part, steps)
        for part in zip(
            images.split(images_per_pass),
            baseline.split(images_per_pass),
            targets.split(images_per_pass),
            strict=True,
        )
    ]
    return [
        Conductance(
            of_block[0].block,
            *(
                torch.cat([getattr(part, name) for part in of_block])
                for name in ("skip", "branch", "difference")
            ),
        )
        for of_block in zip(*parts, strict=True)
    ]


def _conductances_in_one_pass(
    model: nn.Module, images: Tensor, baseline: Tensor, targets: Tensor, steps: int
) -> list[Conductance]:
    residual = [block for block in find_blocks(model) if block.residual]
    summands: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    along = torch.linspace(0, 1, steps + 1, dtype=images.dtype, device=images.device)
    points = baseline + along.view(-1, 1, 1, 1, 1) * (images - baseline)
    with torch.enable_grad(), rewired(dict.fromkeys(residual, _keep_summands(summands))):
        logits = model(points.flatten(0, 1).requires_grad_())
        chosen = logits.gather(1, targets.repeat(steps + 1)[:, None])
        sums = [summands[block.name][2] for block in residual]
        gradients = torch.autograd.grad(chosen.sum(), sums) if sums else ()
    by_point = chosen.detach().cpu().double().view(steps + 1, -1)
    difference = by_point[-1] - by_point[0]

    def integrate(gradient: Tensor, value: Tensor) -> Tensor:
        slope = gradient.view(steps + 1, len(images), -1)
        height = value.detach().reshape(slope.shape)
        return (
            ((slope[1:] + slope[:-1]) / 2 * (height[1:] - height[:-1])).sum((0, 2)).cpu().double()
        )

    return [
        Conductance(
            block.name,
            integrate(gradient, summands[block.name][0]),
            integrate(gradient, summands[block.name][1]),
            difference,
        )
        for block, gradient in zip(residual, gradients, strict=True)
    ]


def _keep_summands(summands: dict[str, tuple[Tensor, Tensor, Tensor]]) -> Rewiring:
    """A rewiring that changes nothing but keeps skip, branch and their sum in `summands`."""

    def keep(block: Block, x: Tensor) -> Tensor:
        skip, branch = block.skip(x), block.branch(x)
        summands[block.name] = (skip, branch, skip + branch)
        return block.rectify(summands[block.name][2])

    return keep


def relative_error(total: Tensor, difference: Tensor) -> Iterator[float]:
    """The completeness error of each element: |total - difference| / |difference|."""
    yield from ((total - difference).abs() / difference.abs()).tolist()
