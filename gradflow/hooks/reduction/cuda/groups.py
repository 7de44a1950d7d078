"""Reduces many tensors of a CUDA device to moments in a few launches."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gradflow.hooks.reduction import histograms
from gradflow.hooks.reduction.cuda import checked
from gradflow.hooks.reduction.fused import moments_if_any
from gradflow.hooks.reduction.moments import Moments

Item = tuple[Tensor, int | None, bool]

# The number of the default stream of each device; `torch.cuda.current_stream` would make an object.
_DEFAULT_STREAM = 0
# Devices on which a group has failed: their tensors are reduced one by one.
_without_groups: set[torch.device] = set()


def reduce_on_device(items: Sequence[Item]) -> list[Moments | None]:
    """Return what `fused.moments_if_any` returns for each (tensor, channel axis, histogram).

    For up to 32 ordinary tensors of a device that are one launch a type and layout, one that merges
    and one copy. Others are reduced one by one. The tensors must have been made on the stream that
    is current when this is called, or it must wait for them; they are read when it is called, and
    may be changed or freed afterwards, on that stream.
    """
    found: list[Moments | None] = [None] * len(items)
    groups: dict[torch.device, list[int]] = {}
    for index, (x, axis, histogram) in enumerate(items):
        if can_be_grouped(x):
            groups.setdefault(x.device, []).append(index)
        else:
            found[index] = moments_if_any(x, axis, histogram=histogram)
    for device, indices in groups.items():
        of_group = _reduce(device, [items[index] for index in indices])
        for index, seen in zip(indices, of_group, strict=True):
            found[index] = seen
    return found


class DeviceGroup:
    """Reduces tensors of a device that look the same each time, as `reduce_on_device` does.

    `tensors` has the dtype of each, and its shape and channel axis in memory order.
    """

    __slots__ = ("_device", "_plans")

    def __init__(
        self,
        device: torch.device,
        tensors: Sequence[tuple[torch.dtype, tuple[int, ...], int | None]],
    ) -> None:
        self._device = device
        self._plans = checked.plans_of_group(device, [(*one, False) for one in tensors])

    def reduce(self, addresses: Sequence[int]) -> list[tuple[Tensor, Sequence[int]]] | None:
        """Return values of tensors at these addresses, and the places of these tensors in order.

        None if a launch fails: the device has no groups any more.
        """
        found: list[tuple[Tensor, Sequence[int]]] = []
        first = 0
        try:
            for plan in self._plans:
                last = first + len(plan.order)
                values, _ = plan.run(addresses[first:last], self._device)
                found.append((values, [first + place for place in plan.order]))
                first = last
        except Exception:  # whatever the launch met, each tensor has a way of its own
            _without_groups.add(self._device)
            return None
        return found


def can_be_grouped(x: Tensor) -> bool:
    """Whether x is an ordinary tensor of a device whose kernels work; others are reduced alone."""
    if type(x) not in (Tensor, nn.Parameter) or not _is_on_gpu(x) or x.device in _without_groups:
        return False
    return x.numel() > 0 and checked.takes_groups(x.device, x.dtype, x.numel())


def can_multiply(whole: Tensor, skip: Tensor, branch: Tensor) -> bool:
    """Whether the products of such gradients are computed in groups, on a device."""
    if not all(map(can_be_grouped, (whole, skip, branch))):
        return False
    look = whole.dtype, whole.device, whole.shape, whole.stride()
    return (
        all((one.dtype, one.device, one.shape, one.stride()) == look for one in (skip, branch))
        and _is_dense(whole)
        and checked.products(whole.device) is not None
    )


def multiply_on_device(items: Sequence[tuple[Tensor, Tensor, Tensor]]) -> list[Tensor | None]:
    """Return the `gradient_products` [7] of gradients for which `can_multiply` holds.

    None for all of a device whose launch fails.
    """
    found: list[Tensor | None] = [None] * len(items)
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index, (whole, _, _) in enumerate(items):
        groups.setdefault((whole.device, whole.dtype), []).append(index)
    for (device, _), indices in groups.items():
        module = checked.products(device)
        try:
            assert module is not None
            products = module.multiply([items[index] for index in indices])
        except Exception:  # whatever the launch met, torch has a way of its own
            _without_groups.add(device)
            continue
        for index, one in zip(indices, products.unbind(), strict=True):
            found[index] = one
    return found


def products_differ(first: Tensor, second: Tensor) -> Tensor:
    """Whether products differ by more than the order of sums: bool, on their device.

    Sums of squares are compared, which do not cancel.
    """
    squares = [0, 1, 2, 5]
    return ~torch.isclose(
        first[squares].double(), second[squares], rtol=1e-3, atol=0.0, equal_nan=True
    ).all()


def is_in_order(x: Tensor) -> bool:
    """Whether what is launched now on x's device runs after what made x: on the default stream."""
    number: int = torch._C._cuda_getCurrentStream(x.get_device())[0]
    return number == _DEFAULT_STREAM


def differ(first: Moments, second: Moments) -> Tensor:
    """Whether the moments of one tensor differ by more than the order of sums: bool, on its device.

    Sums of squares and the count of zeros are compared, which do not cancel.
    """
    channels = first.channels
    values, others = (torch.as_tensor(one.values) for one in (first, second))
    squares = slice(channels, 2 * channels)
    same = torch.isclose(values[squares], others[squares], rtol=1e-3, atol=0.0, equal_nan=True)
    return ~(same.all() & (values[-2] == others[-2]))


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or (
        x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    )


def _is_on_gpu(x: Tensor) -> bool:
    return x.is_cuda and x.layout is torch.strided and not x.is_nested and not x.is_neg()


@torch.no_grad()
def _reduce(device: torch.device, items: Sequence[Item]) -> Sequence[Moments | None]:
    counted = any(wanted for _, _, wanted in items) and checked.counts_magnitudes(device)
    prepared = [
        (x.detach(), axis % x.dim() if axis is not None and x.dim() else None, wanted and counted)
        for x, axis, wanted in items
    ]
    try:
        values = checked.values_of_group(device, prepared)
    except Exception:  # whatever the launch met, each tensor has a way of its own
        _without_groups.add(device)
        return [moments_if_any(x, axis, histogram=wanted) for x, axis, wanted in items]
    found = []
    for (x, axis, _), (_, _, wanted), (sums, bins) in zip(prepared, items, values, strict=True):
        counts = histograms.count(x) if wanted and bins is None else bins
        shape = x.shape
        channels = 1 if axis is None else shape[axis]
        batch_size = shape[0] if shape else 1
        found.append(Moments(sums, channels, x.numel(), batch_size, axis is not None, counts))
    return found
