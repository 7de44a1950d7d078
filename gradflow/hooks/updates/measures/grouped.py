"""Norms, products and copies of many tensors on a device, in few launches.

`torch._foreach_*` reads a list of tensors in one launch. What needs an intermediate tensor for each
goes through the list by pieces, so there is never a second copy of a large model. Before a device's
first use the results are compared with those of torch for single tensors: some versions have given
wrong norms (pytorch issue 140066), of lists with empty tensors among large ones.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.by_torch import sum_dtype
from gradflow.hooks.reduction.deferred.same_looks import LooksAgain

# Bytes of intermediate tensors at a time; a single larger tensor has them all the same.
_AT_ONCE = 1 << 26
# The kernels count elements in 32 bits (pytorch issue 169930).
_MAX_ELEMENTS = 1 << 31
_HALF_PRECISION = (torch.float16, torch.bfloat16)
_DTYPES = (torch.float64, torch.float32, *_HALF_PRECISION)

# The places of tensors that go together, and of those that are read one by one.
Groups = tuple[list[list[int]], list[int]]
# By length, how lists looked that were divided last: a step has a few lists of the same length.
_divided: dict[int, deque[tuple[LooksAgain, Groups]]] = defaultdict(lambda: deque(maxlen=6))
_trusted: dict[torch.device, bool] = {}
_waiting: set[torch.device] = set()


def groups_of(tensors: Sequence[Tensor]) -> Groups:
    """Return the places of tensors that go together, and of those that are read one by one.

    Lists that look as one before are divided as it was.
    """
    known = _divided[len(tensors)]
    for looks, found in tuple(known):
        if looks.are_those_of(tensors):
            return found
    found = _divide(tensors)
    looks = LooksAgain()
    looks.learn(tensors)
    known.appendleft((looks, found))
    return found


def _divide(tensors: Sequence[Tensor]) -> Groups:
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = defaultdict(list)
    alone: list[int] = []
    for place, tensor in enumerate(tensors):
        if _is_supported(tensor) and _is_trusted(tensor.device):
            groups[tensor.device, tensor.dtype].append(place)
        else:
            alone.append(place)
    return list(groups.values()), alone


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """Return the L2 norms of tensors of one device and dtype, in the dtype for sums: [n]."""
    return torch.stack(torch._foreach_norm(list(tensors), 2, dtype=sum_dtype(tensors[0])))


def products(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Return the inner products of pairs of tensors: [n].

    A sum is twice that of the positive summands, less that of all magnitudes: both are norms.
    """
    # In float32, products of small gradients would underflow, and those of large ones overflow.
    wide, found = sum_dtype(first[0]), []
    for one, other in zip(_pieces(first), _pieces(second), strict=True):
        product = torch._foreach_mul(_wider(one, wide), _wider(other, wide))
        magnitudes = torch._foreach_norm(product, 1, dtype=wide)
        torch._foreach_clamp_min_(product, 0.0)
        positive = torch._foreach_norm(product, 1, dtype=wide)
        found += [torch.stack(positive).mul_(2).sub_(torch.stack(magnitudes))]
    return torch.cat(found)


def distances(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Return the L2 norms of the differences of pairs of tensors: [n]."""
    return torch.cat(
        [
            norms(torch._foreach_sub(_single(one), _single(other)))
            for one, other in zip(_pieces(first), _pieces(second), strict=True)
        ]
    )


def copy(into: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    """Copy each of `tensors` into its counterpart."""
    torch._foreach_copy_(list(into), list(tensors))


def prepare(device: torch.device) -> bool:
    """Test the grouped operations on `device`; return whether they are used there. Waits for it."""
    _waiting.discard(device)
    if device not in _trusted:
        try:
            _trusted[device] = _are_right(device)
        except Exception:  # on any failure, each tensor is read alone
            _trusted[device] = False
        _divided.clear()
    return _trusted[device]


def prepare_waiting() -> None:
    """Test the devices that were met within a step, where nothing may wait for them."""
    for device in list(_waiting):
        prepare(device)


def _is_supported(tensor: Tensor) -> bool:
    return (
        type(tensor) in (Tensor, torch.nn.Parameter)
        and tensor.layout == torch.strided
        and tensor.dtype in _DTYPES
        and not tensor.is_nested
        and not tensor.is_neg()
        and 0 < tensor.numel() < _MAX_ELEMENTS
        and (tensor.device.type != "cpu" or cpu.loops_module() is None)
        and tensor.device.type != "meta"
    )


def _is_trusted(device: torch.device) -> bool:
    if device.type == "cpu":
        return prepare(device)
    if device not in _trusted:
        _waiting.add(device)
    return _trusted.get(device, False)


def _pieces(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield the tensors in lists of at most `_AT_ONCE` bytes, or of one tensor."""
    piece: list[Tensor] = []
    size = 0
    for tensor in tensors:
        more = tensor.numel() * 8  # bytes of float64
        if piece and size + more > _AT_ONCE:
            yield piece
            piece, size = [], 0
        piece.append(tensor)
        size += more
    if piece:
        yield piece


def _single(tensors: list[Tensor]) -> list[Tensor]:
    """Return the tensors, those of half precision in float32.

    In half precision, their differences would be rounded.
    """
    half = tensors[0].dtype in _HALF_PRECISION
    return _wider(tensors, torch.float32) if half else tensors


def _wider(tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Return the tensors in `dtype`."""
    if tensors[0].dtype == dtype:
        return tensors
    wide = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    torch._foreach_copy_(wide, tensors)
    return wide


@torch.no_grad()
def _are_right(device: torch.device) -> bool:
    """Whether the grouped operations give what torch gives for single tensors on `device`."""
    wide = torch.float32 if device.type == "mps" else torch.float64
    sizes = (300_000, 7, 70_000, 1, 4096, 65_537, 3, 150_001)
    for dtype in (torch.float32, torch.bfloat16):
        first = [_sample(size, place, device).to(dtype) for place, size in enumerate(sizes)]
        second = [_sample(size, place + 5, device).to(dtype) for place, size in enumerate(sizes)]
        copies = [torch.empty_like(tensor) for tensor in first]
        copy(copies, first)
        pairs = list(zip([x.to(wide) for x in first], [y.to(wide) for y in second], strict=True))
        checks: list[tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]] = [
            (norms(first), lambda x, y: x.norm()),
            (norms(copies), lambda x, y: x.norm()),
            (products(first, second), torch.dot),
            (distances(first, second), lambda x, y: (x - y).norm()),
        ]
        for found, expected in checks:
            wanted = torch.stack([expected(x, y) for x, y in pairs]).cpu().double()
            if not torch.allclose(found.cpu().double(), wanted, rtol=1e-5, atol=1e-5):
                return False
    return True


def _sample(size: int, seed: int, device: torch.device) -> Tensor:
    """Numbers of both signs, without the generator that the training draws from."""
    steps = torch.arange(size, device=device, dtype=torch.float32)
    return ((steps * (2 * seed + 3)) % 17 - 8).div_(8 + seed)
