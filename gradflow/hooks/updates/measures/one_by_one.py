"""The inner product and the distance of two tensors that are read alone, by torch.

They are computed in the dtype for sums: products of half precision would underflow, overflow or be
rounded. A large tensor goes through by pieces, so that there is never a wide copy of it.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.by_torch import sum_dtype

_AT_ONCE = 1 << 20  # elements


@torch.no_grad()
def product(first: Tensor, second: Tensor) -> Tensor:
    """Return <first, second> of two tensors of one shape and dtype, 0-d.

    Of complex ones it is that of their parts: the real part of the complex product.
    """
    return torch.stack([torch.dot(x, y) for x, y in _pieces(first, second)]).sum()


@torch.no_grad()
def distance(first: Tensor, second: Tensor) -> Tensor:
    """Return the L2 norm of first - second, of one shape and dtype, 0-d."""
    square = cpu.square_distance(first, second)
    if square is not None:
        return torch.tensor(square, dtype=torch.float64).sqrt()
    # The norm of norms, not the root of squares: squares of small numbers underflow.
    norms = [torch.linalg.vector_norm(x - y) for x, y in _pieces(first, second)]
    whole: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return whole


def _pieces(first: Tensor, second: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    wide = sum_dtype(first)
    if first.is_complex():
        first, second = (torch.view_as_real(x.resolve_conj()) for x in (first, second))
    pairs = (x.flatten().split(_AT_ONCE) for x in (first, second))
    yield from ((x.to(wide), y.to(wide)) for x, y in zip(*pairs, strict=True))
