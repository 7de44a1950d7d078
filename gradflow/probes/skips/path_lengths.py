"""The probe `path_lengths`: how much of the gradient flows along paths with few or many branches?

A network of n residual blocks is a sum over 2^n paths, each taking the branch or the skip of every
block (Veit et al. 2016, Residual networks behave like ensembles). The gradient at the first block's
input is the sum over the same paths in reverse, at the activations of the full forward pass.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gradflow.probes.network.blocks import Block, find_blocks, rewired
from gradflow.probes.probe import NotMeasurableError, Probe, Subject, Tables, When
from gradflow.seeding import derived_seed


@dataclass(frozen=True, eq=False)
class SplitBlock:
    """A block after the forward pass, whose skip and branch can be back-propagated separately.

    Fields:
        x: its input, a leaf tensor.
        skip, branch: the summands, functions of x; the skip may be x itself.
        y: its output relu(skip + branch), a leaf tensor that the next layer reads.
    """

    x: Tensor
    skip: Tensor
    branch: Tensor
    y: Tensor

    def back_through_relu(self, gradient: Tensor) -> Tensor:
        """The gradient at the sum, given the gradient at y."""
        return gradient * (self.y > 0)

    def back_through_skip(self, gradient: Tensor) -> Tensor:
        """The gradient at x through the skip, given the gradient at the sum."""
        return gradient if self.skip is self.x else self._back(self.skip, gradient)

    def back_through_branch(self, gradient: Tensor) -> Tensor:
        """The gradient at x through the branch, given the gradient at the sum."""
        return self._back(self.branch, gradient)

    def _back(self, output: Tensor, gradient: Tensor) -> Tensor:
        return torch.autograd.grad(output, self.x, gradient, retain_graph=True)[0]


def measure(subject: Subject, exact_up_to: int = 64, draws: int = 16) -> Tables:
    """Split dL/dx at the first block's input x by the number of branches that a path takes.

    The exact method expands all paths block by block. It needs n (n + 1) / 2 backward passes
    through branches, as many as one random path of each length, and holds n + 1 gradients at a
    time.

    Args:
        subject: L is the mean cross-entropy of its `batch`.
        exact_up_to: the largest number of blocks for the exact method. With more blocks, paths are
            drawn at random, which holds one gradient at a time. Their mean times the number of
            paths is unbiased, but its norm is too large by the scatter of the draws.
        draws: paths drawn for each length, with replacement; one if a length has only one path.

    Returns: the table `path_lengths`.

    Raises `NotMeasurableError` if the network has no residual blocks, or if the input of one is
    not the output of the one before it.
    """
    split_blocks, gradient = _split_blocks(subject)
    n = len(split_blocks)
    exact = n <= exact_up_to
    if exact:
        by_length = gradients_by_length(split_blocks, gradient)
        full_gradient = torch.stack(by_length).sum(0)
        taken: list[int | None] = [None] * (n + 1)
    else:
        seed = derived_seed(subject.seed, subject.epoch, "path_lengths")
        generator = torch.Generator().manual_seed(seed)
        drawn = [1 if length in (0, n) else draws for length in range(n + 1)]
        by_length = [
            sample_gradient(split_blocks, gradient, length, draws=count, generator=generator)
            for length, count in enumerate(drawn)
        ]
        full_gradient, taken = _full_gradient(split_blocks, gradient), list(drawn)
    squared = _inner_product(full_gradient, full_gradient)
    return {
        "path_lengths": {
            "length": list(range(n + 1)),
            "paths": [float(math.comb(n, length)) for length in range(n + 1)],
            "gradient_norm": [math.sqrt(_inner_product(part, part)) for part in by_length],
            "share": [
                _inner_product(part, full_gradient) / squared if squared else None
                for part in by_length
            ],
            "draws": taken,
        }
    }


def gradients_by_length(split_blocks: Sequence[SplitBlock], gradient: Tensor) -> list[Tensor]:
    """The gradient at the first block's input by paths of each length: n + 1 tensors of x's shape.

    `gradient` is that at the last block's output. Going backward through a block, a path of length
    k is one of length k that takes its skip, or one of length k - 1 that takes its branch.
    """
    by_length = [gradient]
    for block in reversed(split_blocks):
        at_sum = [block.back_through_relu(part) for part in by_length]
        by_skip = [block.back_through_skip(part) for part in at_sum]
        by_branch = [block.back_through_branch(part) for part in at_sum]
        by_length = [
            by_skip[0],
            *(skip + branch for skip, branch in zip(by_skip[1:], by_branch, strict=False)),
            by_branch[-1],
        ]
    return by_length


def sample_gradient(
    split_blocks: Sequence[SplitBlock],
    gradient: Tensor,
    length: int,
    *,
    draws: int,
    generator: torch.Generator,
) -> Tensor:
    """Estimate one entry of `gradients_by_length` without bias, from `draws` random paths."""
    n = len(split_blocks)
    total = torch.zeros_like(split_blocks[0].x)
    for _ in range(draws):
        branches = set(torch.randperm(n, generator=generator)[:length].tolist())
        part = gradient
        for place in reversed(range(n)):
            at_sum = split_blocks[place].back_through_relu(part)
            if place in branches:
                part = split_blocks[place].back_through_branch(at_sum)
            else:
                part = split_blocks[place].back_through_skip(at_sum)
        total += part
    return total * (math.comb(n, length) / draws)


def _split_blocks(subject: Subject) -> tuple[list[SplitBlock], Tensor]:
    """The residual blocks after a forward pass, and the gradient at the last one's output."""
    residual = [block for block in find_blocks(subject.model) if block.residual]
    if not residual:
        raise NotMeasurableError("the network has no residual blocks, so it has only one path")
    subject.model.requires_grad_(False)
    split_blocks: list[SplitBlock] = []

    def run(block: Block, x: Tensor) -> Tensor:
        if split_blocks and x is not split_blocks[-1].y:
            raise NotMeasurableError(
                f"{block.name} does not read the output of the block before it"
            )
        leaf = x.detach().requires_grad_()
        skip, branch = block.skip(leaf), block.branch(leaf)
        y = block.rectify((skip + branch).detach()).requires_grad_()
        split_blocks.append(SplitBlock(leaf, skip, branch, y))
        return y

    with rewired(dict.fromkeys(residual, run)):
        loss = F.cross_entropy(subject.model(subject.batch.images), subject.batch.targets)
    return split_blocks, torch.autograd.grad(loss, split_blocks[-1].y)[0]


def _full_gradient(split_blocks: Sequence[SplitBlock], gradient: Tensor) -> Tensor:
    """The gradient at the first block's input, over all paths together."""
    for block in reversed(split_blocks):
        at_sum = block.back_through_relu(gradient)
        gradient = block.back_through_skip(at_sum) + block.back_through_branch(at_sum)
    return gradient


def _inner_product(first: Tensor, second: Tensor) -> float:
    # On the CPU: not every device has double precision.
    return float((first.cpu().double() * second.cpu().double()).sum())


PROBE = Probe("path_lengths", ("path_lengths",), When.FIRST_AND_LAST, measure)
