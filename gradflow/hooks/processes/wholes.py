"""The whole of what several processes have parts of: moments of tensors, products of gradients."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import TypeVar

import torch
from torch import Tensor

from gradflow.hooks.processes.norms import SAME_WITHIN
from gradflow.hooks.reduction.moments import Moments
from gradflow.hooks.reduction.parts import Part

_Seen = TypeVar("_Seen")

# The share of the batch that a process has, and its part of the layers.
Coordinates = tuple[int, int]


def whole_moments(by_place: Sequence[tuple[Coordinates, Moments]], part: Part) -> Moments | None:
    """Return the moments of the whole tensor from those of every process, of which each has `part`.

    None if the part is unknown, or if what should be the same is not.
    """
    if part is Part.UNKNOWN:
        return None
    shares = _by_share(by_place)
    if part is Part.WHOLE and not all(
        _are_same([torch.as_tensor(one.values) for one in copies]) for copies in shares
    ):
        return None
    joined = reduce(Moments.join, (_whole_share(parts, part) for parts in shares))
    return replace(joined, part=Part.WHOLE)


def whole_products(by_place: Sequence[tuple[Coordinates, Tensor]], part: Part) -> Tensor | None:
    """Return the sum of inner products over the batch, from those of every process, like above."""
    shares = _by_share(by_place)
    if part is Part.UNKNOWN or (part is Part.WHOLE and not all(map(_are_same, shares))):
        return None
    counted = [copies[:1] if part is Part.WHOLE else copies for copies in shares]
    return torch.stack([one for copies in counted for one in copies]).sum(0)


def _by_share(by_place: Sequence[tuple[Coordinates, _Seen]]) -> list[list[_Seen]]:
    """What the processes of each share of the batch have seen, in the order of their parts."""
    shares: dict[int, list[_Seen]] = {}
    for (data, _), seen in sorted(by_place, key=lambda entry: entry[0]):
        shares.setdefault(data, []).append(seen)
    return list(shares.values())


def _whole_share(parts: Sequence[Moments], part: Part) -> Moments:
    """Return the moments of one share of the batch from those of its parts, in order."""
    if part is Part.WHOLE:
        return parts[0]
    if part is Part.CHANNELS:
        return reduce(Moments.beside, parts)
    joined = reduce(Moments.join, parts)
    return joined if part is Part.BATCH else replace(joined, batch_size=parts[0].batch_size)


def _are_same(copies: Sequence[Tensor]) -> bool:
    first, *others = copies
    size = float(first.abs().nan_to_num(0.0, 0.0).max()) * SAME_WITHIN
    return all(
        len(one) == len(first)
        and torch.allclose(one, first, rtol=SAME_WITHIN, atol=size, equal_nan=True)
        for one in others
    )
