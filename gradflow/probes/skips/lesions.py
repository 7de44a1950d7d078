"""The probe `lesions`: deletes single blocks and random sets of blocks, and measures the accuracy.

Deleting a block leaves out its branch and keeps its skip. If paths of many lengths share the work,
no single block is needed; in a plain network every block is needed (Veit et al. 2016, Residual
networks behave like ensembles).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradflow.data import Batch
from gradflow.probes.network.blocks import Block, find_blocks
from gradflow.probes.network.partial_forward import forward_keeping_inputs, forward_rewired
from gradflow.probes.network.predictions import predictions_from
from gradflow.probes.probe import NotMeasurableError, Probe, Subject, Tables, When
from gradflow.seeding import derived_seed

SEPARATOR = "+"
Lesion = tuple[Block, ...]


@torch.no_grad()
def measure(subject: Subject, draws: int = 3) -> Tables:
    """Classify all validation images with no block, one block and several blocks deleted.

    A deleted block computes relu(skip(x)); see `Block.skip` for a plain block. Batch norms keep
    their running statistics, as in the paper. These belong to other activations, which explains
    part of the loss of accuracy.

    Args:
        subject: for each lesion, its validation images run through the network, from the first
            deleted block on.
        draws: the number of different sets of k blocks that are drawn at random, for k = 2, 4, 8,
            ... below the number of blocks; all sets if there are not more.

    Returns: the table `lesions`. Its rows without blocks are the unchanged network.

    Raises `NotMeasurableError` if the network has no blocks.
    """
    blocks = find_blocks(subject.model)
    if not blocks:
        raise NotMeasurableError("the network has no blocks of a known kind that could be deleted")
    lesions: list[Lesion] = [
        (),
        *((block,) for block in blocks),
        *_draw_lesions(blocks, subject, draws),
    ]
    parts: dict[Lesion, list[tuple[Batch, Tensor]]] = {lesion: [] for lesion in lesions}
    for batch in subject.validation_batches():
        intact, inputs = forward_keeping_inputs(subject.model, blocks, batch.images)
        parts[()].append((batch, intact))
        for lesion in lesions[1:]:
            deletions = dict.fromkeys(lesion, _skip_only)
            logits = forward_rewired(subject.model, blocks, deletions, batch.images, inputs)
            parts[lesion].append((batch, logits))
    tables = [_columns(lesion, parts[lesion]) for lesion in lesions]
    return {
        "lesions": {name: [value for one in tables for value in one[name]] for name in tables[0]}
    }


def _skip_only(block: Block, x: Tensor) -> Tensor:
    return block.rectify(block.skip(x))


def _draw_lesions(blocks: Sequence[Block], subject: Subject, draws: int) -> list[Lesion]:
    """Different random sets of k blocks for each k. The blocks of a set are in network order."""
    generator = torch.Generator().manual_seed(derived_seed(subject.seed, subject.epoch, "lesions"))
    n, size, chosen = len(blocks), 2, []
    while size < n:
        sets: dict[tuple[int, ...], None] = {}
        while len(sets) < min(draws, math.comb(n, size)):
            places = torch.randperm(n, generator=generator)[:size].sort().values
            sets[tuple(places.tolist())] = None
        chosen += [tuple(blocks[place] for place in places) for places in sets]
        size *= 2
    return chosen


def _columns(lesion: Lesion, parts: Sequence[tuple[Batch, Tensor]]) -> dict[str, list[Any]]:
    found = predictions_from(parts)
    return {
        "blocks": [SEPARATOR.join(block.name for block in lesion)] * len(found.image),
        "deleted": [len(lesion)] * len(found.image),
        **{name: values.tolist() for name, values in vars(found).items()},
    }


PROBE = Probe("lesions", ("lesions",), When.LAST, measure)
