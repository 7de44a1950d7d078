"""Compares the probe `path_lengths` with a formula, and with all paths followed one by one."""

from collections.abc import Collection, Iterable
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from analyses.statistics import theory
from gradflow.data import Batch
from gradflow.models import build
from gradflow.probes.network.blocks import Block, find_blocks, rewired
from gradflow.probes.probe import Subject
from gradflow.probes.skips import path_lengths
from published.rows import Item, Tolerance, compare

GAIN = 0.26
CLASSES = 5
EXACT = Tolerance(absolute=1e-10)


def item() -> Item:
    """54 linear blocks against the formula, and 9 blocks, linear or not, against all 512 paths."""
    deep = probe_shares(_linear_network("resnet110"))
    predicted = theory.path_length_shares(54, GAIN)
    lengths = np.arange(55)
    middle = slice(5, 18)
    linear = every_path_shares(_linear_network("resnet20"))
    from_formula = np.abs(linear - theory.path_length_shares(9, GAIN)).max()
    drawn = _network("resnet20")
    from_paths = np.abs(probe_shares(drawn) - every_path_shares(drawn)).max()
    rows = (
        compare("mean length, n=54", float(lengths @ predicted), [float(lengths @ deep)], EXACT),
        compare(
            "share of lengths 5 to 17, n=54",
            float(predicted[middle].sum()),
            [float(deep[middle].sum())],
            EXACT,
        ),
        compare("sum of all shares, n=54", 1.0, [float(deep.sum())], EXACT),
        compare("largest share, n=54", float(predicted.max()), [float(deep.max())], EXACT),
        compare("512 paths - formula, max |.|", 0.0, [float(from_formula)], EXACT),
        compare("probe - 512 paths, drawn weights", 0.0, [float(from_paths)], EXACT),
    )
    return Item(
        paper="3  Veit et al. 2016: share of the gradient by path length",
        setting=f"resnet110 and resnet20 (n=9), float64; linear branches of gain a={GAIN} but in "
        "the last row",
        tolerance=f"{EXACT}, rounding: the shares are exactly Binomial(n, a/(1+a))",
        rows=rows,
    )


def probe_shares(model: nn.Module) -> NDArray[np.float64]:
    """The shares of lengths 0 ... n that the probe `path_lengths` measures."""
    subject = Subject(
        model=model,
        epoch=1,
        is_last_epoch=True,
        accuracy_changed=False,
        previous_state=None,
        batch=_batch(),
        training_batches=lambda: (),
        validation_batches=lambda: (),
        seed=0,
    )
    return np.array(path_lengths.measure(subject)["path_lengths"]["share"])


def every_path_shares(model: nn.Module) -> NDArray[np.float64]:
    """<g_k, g> / <g, g> for k = 0 ... n, with one backward pass for every path.

    g is dL/dx at the first block's input; g_k is its part over all paths of length k.
    """
    chain = find_blocks(model)
    parts = []
    for length in range(len(chain) + 1):
        gradients = [path_gradient(model, chain, path) for path in combinations(chain, length)]
        parts.append(torch.stack(gradients).sum(0).flatten())
    by_length = torch.stack(parts)
    full = by_length.sum(0)
    shares: NDArray[np.float64] = (by_length @ full / full.square().sum()).numpy()
    return shares


def path_gradient(model: nn.Module, chain: Iterable[Block], through: Collection[Block]) -> Tensor:
    """dL/dx by one path: through the branches of the blocks `through`, else through the skips.

    The forward pass is that of the whole network.
    """
    leaves: list[Tensor] = []

    def run(block: Block, x: Tensor) -> Tensor:
        if not leaves:
            x = x.detach().requires_grad_()
            leaves.append(x)
        branch, skip = block.branch(x), block.skip(x)
        taken, other = (branch, skip) if block in through else (skip, branch)
        return block.rectify(taken + other.detach())

    batch = _batch()
    with rewired(dict.fromkeys(chain, run)):
        loss = F.cross_entropy(model(batch.images), batch.targets)
    (gradient,) = torch.autograd.grad(loss, leaves)
    return gradient


def _batch() -> Batch:
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return Batch(images, targets=torch.tensor([0, 1]), indices=torch.tensor([0, 1]))


def _network(name: str) -> nn.Module:
    """gradflow's network `name` without normalization, its weights drawn."""
    return build(name, classes=CLASSES, norm="none", seed=0).double().eval()


def _linear_network(name: str) -> nn.Module:
    """The network `name` with every branch equal to `GAIN` times its skip.

    The first convolution of a branch copies its input channels, the second multiplies them. All
    signals are positive, so no ReLU clips any.
    """
    model = _network(name)
    with torch.no_grad():
        model.get_parameter("conv1.weight").abs_()
        for block in find_blocks(model):
            for convolution, factor in (("conv1", 1.0), ("conv2", GAIN)):
                nn.init.zeros_(block.module.get_parameter(f"{convolution}.bias"))
                weight = block.module.get_parameter(f"{convolution}.weight")
                nn.init.dirac_(weight)
                weight.mul_(factor)
    return model
