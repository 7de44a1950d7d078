"""The inner products of the gradients of several terms, on their device."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradflow.hooks.reduction.by_torch import sum_dtype
from gradflow.hooks.reduction.nested import values_of

# How many elements of each gradient are converted at a time.
_PIECE = 1 << 22


@dataclass
class Products:
    """Inner products of the gradients of K terms at one place.

    Fields:
        values: [K, K] on the device, in float64 (float32 on mps); 0 for terms without a gradient.
        known: [K] which terms have a gradient there.
    """

    values: Tensor
    known: list[bool]

    def __add__(self, other: "Products") -> "Products":
        """Return the products of both places taken as one; their terms may be more than ours."""
        more = len(other.known) - len(self.known)
        mine = torch.nn.functional.pad(self.values, (0, more, 0, more))
        known = [
            one or another
            for one, another in zip([*self.known, *[False] * more], other.known, strict=True)
        ]
        return Products(mine + other.values.to(mine.device), known)


def products_of(gradients: Sequence[Tensor | None], scale: Tensor | None = None) -> Products | None:
    """Return the products of K gradients of one tensor, divided by `scale`^2; None without any."""
    places = [place for place, one in enumerate(gradients) if one is not None]
    if not places:
        return None
    flat = [_flat(one) for one in gradients if one is not None]
    wide = sum_dtype(flat[0])
    among = torch.zeros(len(flat), len(flat), dtype=wide, device=flat[0].device)
    for start in range(0, flat[0].numel(), _PIECE):
        piece = torch.stack([one[start : start + _PIECE].to(wide) for one in flat])
        among += piece @ piece.T
    if scale is not None:
        among /= scale.to(among) ** 2
    return Products(_among(len(gradients), places, among), [one is not None for one in gradients])


def _among(count: int, places: Sequence[int], values: Tensor) -> Tensor:
    """Return [count, count] with `values` at `places`, without waiting for the device."""
    if len(places) == count:
        return values
    whole = values.new_zeros(count, count)
    for row, i in enumerate(places):
        for column, j in enumerate(places):
            whole[i, j] = values[row, column]
    return whole


def _flat(gradient: Tensor) -> Tensor:
    """Return the elements in a row; complex numbers as pairs of real ones."""
    gradient = gradient.detach()
    if gradient.is_nested:
        gradient = values_of(gradient)[0]
    if gradient.layout not in (torch.strided, torch.jagged):
        gradient = gradient.to_dense()
    if gradient.is_complex():
        gradient = torch.view_as_real(gradient.resolve_conj())
    return gradient.reshape(-1)
