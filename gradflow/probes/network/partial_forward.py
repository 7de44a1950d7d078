"""Partial forward passes: runs a network from its first rewired block on, with stored inputs."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradflow.probes.network.blocks import Block, Rewiring, rewired


def forward_keeping_inputs(
    model: nn.Module, blocks: Sequence[Block], images: Tensor
) -> tuple[Tensor, dict[Block, Tensor]]:
    """The output of `model` for `images` [N, 3, H, W], and the input of each block."""
    inputs: dict[Block, Tensor] = {}

    def keep(block: Block) -> None:
        def before(_: nn.Module, args: tuple[Tensor]) -> None:
            inputs[block] = args[0]

        handles.append(block.module.register_forward_pre_hook(before))

    handles: list[RemovableHandle] = []
    try:
        for block in blocks:
            keep(block)
        output: Tensor = model(images)
    finally:
        for handle in handles:
            handle.remove()
    return output, inputs


def forward_rewired(
    model: nn.Module,
    blocks: Sequence[Block],
    rewirings: Mapping[Block, Rewiring],
    images: Tensor,
    inputs: Mapping[Block, Tensor],
) -> Tensor:
    """The output of `model` with `rewirings`. Blocks before the first rewired one do not run.

    Args:
        model: in the same mode and with the same statistics as when `inputs` were recorded.
        blocks: all blocks of `model`, in order; the input of each is the output of the one before.
        rewirings: at least one; what these blocks compute instead of their own forward.
        images: [N, 3, H, W].
        inputs: the input of each block for the same images, from `forward_keeping_inputs`.
    """
    start = next(place for place, block in enumerate(blocks) if block in rewirings)
    first = blocks[start]

    def enter(block: Block, _: Tensor) -> Tensor:
        return rewirings[block](block, inputs[block])

    with rewired({**rewirings, **dict.fromkeys(blocks[:start], _pass), first: enter}):
        output: Tensor = model(images)
    return output


def _pass(_: Block, x: Tensor) -> Tensor:
    return x
