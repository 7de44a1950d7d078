"""Finds the blocks of a network, runs their branch and skip, and replaces what they compute.

A residual block computes relu(branch(x) + skip(x)); a plain block computes relu(branch(x)).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock as TorchvisionBasicBlock
from torchvision.models.resnet import Bottleneck

from gradflow.models.blocks import BasicBlock, PlainBlock, ZeroPadShortcut

# Computes the output of a block from the block and its input, instead of the block's own forward.
Rewiring = Callable[["Block", Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Block:
    """One block of a network.

    Fields:
        name: qualified module name.
        module: the module itself.
        residual: whether the block adds a skip to its branch.
    """

    name: str
    module: nn.Module
    residual: bool

    def branch(self, x: Tensor) -> Tensor:
        """The branch's output [N, out, H/s, W/s] for x [N, in, H, W], without the last ReLU."""
        module = self.module
        if isinstance(module, PlainBlock):
            return module.branch(x)
        assert isinstance(module, TorchvisionBasicBlock | Bottleneck)
        out: Tensor = module.relu(module.bn1(module.conv1(x)))
        out = module.bn2(module.conv2(out))
        if isinstance(module, Bottleneck):
            out = module.bn3(module.conv3(module.relu(out)))
        return out

    def skip(self, x: Tensor) -> Tensor:
        """The skip's output: x or its projection, times the network's `skip_scale` if it has one.

        In a plain block, the skip that the block would have: x itself. If the block changes the
        shape, x is subsampled and padded with channels of zeros (option A of He et al. 2015).
        """
        if isinstance(self.module, BasicBlock):
            return self.module.skip(x)
        if self.residual:
            downsample = self.module.downsample
            if downsample is None:
                return x
            assert isinstance(downsample, nn.Module)
            projected: Tensor = downsample(x)
            return projected
        convolution = self.module.conv1
        assert isinstance(convolution, nn.Conv2d)
        inputs, outputs = convolution.in_channels, convolution.out_channels
        stride = int(convolution.stride[0])
        return (
            x if inputs == outputs and stride == 1 else ZeroPadShortcut(inputs, outputs, stride)(x)
        )

    def rectify(self, x: Tensor) -> Tensor:
        """The ReLU at the end of the block, not in place."""
        return x.relu()


def find_blocks(model: nn.Module) -> list[Block]:
    """The blocks of `model` in order. Only gradflow's and torchvision's networks have blocks."""
    residual = (BasicBlock, TorchvisionBasicBlock, Bottleneck)
    return [
        Block(name, module, isinstance(module, residual))
        for name, module in model.named_modules()
        if isinstance(module, (PlainBlock, *residual))
    ]


@contextmanager
def rewired(rewirings: Mapping[Block, Rewiring]) -> Iterator[None]:
    """Within the context, each block computes rewiring(block, input) instead of its own forward."""
    try:
        for block, rewiring in rewirings.items():
            # An instance attribute hides the forward of the class; deleting it restores that.
            block.module.forward = _bound(block, rewiring)
        yield
    finally:
        for block in rewirings:
            vars(block.module).pop("forward", None)


def _bound(block: Block, rewiring: Rewiring) -> Callable[[Tensor], Tensor]:
    return lambda x: rewiring(block, x)
