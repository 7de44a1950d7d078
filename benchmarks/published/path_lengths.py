"""The gradient by path length through a residual network whose branches are linear."""

from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradflow.models import build
from gradflow.probes.blocks import Block, blocks, rewired
from published import formulas
from published.rows import Item, Tolerance, compare

GAIN = 0.26
EXACT = Tolerance(absolute=1e-10)


def item() -> Item:
    """54 blocks, where one path stands for all of its length, and 9 with all 512 paths."""
    deep = gradient_shares(_linear_network("resnet110"), expand=False)
    shallow = gradient_shares(_linear_network("resnet20"), expand=True)
    predicted = formulas.path_length_shares(54, GAIN)
    lengths = np.arange(55)
    middle = slice(5, 18)
    difference = shallow - formulas.path_length_shares(9, GAIN)
    rows = (
        compare(
            "mean length, n=54",
            float(lengths @ predicted),
            [float(lengths @ deep)],
            EXACT,
        ),
        compare(
            "share of lengths 5 to 17, n=54",
            float(predicted[middle].sum()),
            [float(deep[middle].sum())],
            EXACT,
        ),
        compare("sum of all shares, n=54", 1.0, [float(deep.sum())], EXACT),
        compare("largest share, n=54", float(predicted.max()), [float(deep.max())], EXACT),
        compare("all 512 paths, n=9: max |diff.|", 0.0, [float(np.abs(difference).max())], EXACT),
    )
    return Item(
        paper="3  Veit et al. 2016: share of the gradient by path length",
        setting=f"resnet110 and resnet20, linear branches of gain a={GAIN}, float64",
        tolerance=f"{EXACT}, rounding: the shares are exactly Binomial(n, a/(1+a))",
        rows=rows,
    )


def gradient_shares(model: nn.Module, *, expand: bool) -> NDArray[np.float64]:
    """<g_k, g> / <g, g> for k = 0 ... n, g_k the input gradient by all paths of length k.

    With `expand` every path is followed; without, the first path of a length stands for all
    C(n, k), which is exact where all blocks have the same gain.
    """
    chain = blocks(model)
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    full = _input_gradient(model, x)
    shares = []
    for length in range(len(chain) + 1):
        paths = list(combinations(chain, length)) if expand else [tuple(chain[:length])]
        gradients = [path_gradient(model, x, chain, path) for path in paths]
        by_length = torch.stack(gradients).mean(dim=0) * comb(len(chain), length)
        shares.append(float((by_length * full).sum() / full.square().sum()))
    return np.array(shares)


def path_gradient(
    model: nn.Module, x: Tensor, chain: Sequence[Block], through: Sequence[Block]
) -> Tensor:
    """dL/dx by one path: of the blocks `chain`, the branches of those `through`, else the skips.

    The forward pass is that of the whole network.
    """

    def by_branch(block: Block, y: Tensor) -> Tensor:
        return block.rectify(block.branch(y) + block.skip(y).detach())

    def by_skip(block: Block, y: Tensor) -> Tensor:
        return block.rectify(block.branch(y).detach() + block.skip(y))

    ways = {block: by_branch if block in through else by_skip for block in chain}
    with rewired(ways):
        return _input_gradient(model, x)


def _input_gradient(model: nn.Module, x: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(model(x).square().sum(), x)
    return gradient


def _linear_network(name: str) -> nn.Module:
    """gradflow's network `name` with every branch equal to `GAIN` times its skip.

    The first convolution of a branch copies the channels it is given, the second multiplies them;
    all signals are positive, so that no ReLU clips any.
    """
    torch.manual_seed(0)
    model = build(name, classes=5, norm="none", seed=0).double()
    with torch.no_grad():
        model.get_parameter("conv1.weight").abs_()
        for block in blocks(model):
            for convolution, factor in (("conv1", 1.0), ("conv2", GAIN)):
                nn.init.zeros_(block.module.get_parameter(f"{convolution}.bias"))
                weight = block.module.get_parameter(f"{convolution}.weight")
                nn.init.dirac_(weight)
                weight.mul_(factor)
    return model
