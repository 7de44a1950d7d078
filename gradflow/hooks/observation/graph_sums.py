"""Sums by channel that a graph writes to buffers, and the moments that follow from them.

What a compiler has to trace is kept to one loop, or one kernel, over the elements of a tensor: all
reductions are by channel, and written as they are. The rest is arithmetic on some numbers a
channel, done after the step for all tensors at once, outside of the graph.

A tensor has two buffers. `sums` [8, C] holds by channel the sums of the first to fourth powers of
the elements about the first of the channel, the largest magnitude, the counts of zeros and of
values that are not finite, and that first element (0 if it is not finite). `counts` [3] holds the
number of elements, the length of the first axis, and the number of passes; each pass adds to it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.reduction.by_torch import sum_dtype

_ROWS = 8


class Buffers(NamedTuple):
    """The buffers of one tensor; see the module."""

    sums: Tensor
    counts: Tensor

    @classmethod
    def of(cls, channels: int, units: Tensor) -> "Buffers":
        """Return buffers of zeros for a tensor of so many channels."""
        return cls(units.new_zeros(_ROWS, channels), units.new_zeros(3))


class Numbers(NamedTuple):
    """What a step has written of one tensor.

    Fields:
        values: [3 C + 6] as those of `Moments`.
        elements, length, passes: as in `counts`, added up over the passes.
    """

    values: np.ndarray
    elements: int
    length: int
    passes: int


def units_on(device: torch.device) -> Tensor:
    """Return the unit vectors [3, 3] for the counts of all tensors on a device."""
    dtype = torch.float32 if device.type == "mps" else torch.float64
    return torch.eye(3, dtype=dtype, device=device)


def write(x: Tensor, axis: int | None, buffers: Buffers, units: Tensor) -> None:
    """Write the sums of x [N, ...] with the channel axis `axis`; None, if it has none."""
    buffers.sums.copy_(_sums(x, axis))
    # What reads the same vectors is put into one kernel for many tensors.
    length = x.shape[0] if x.dim() else 1
    buffers.counts.add_(units[0] * x.numel() + units[1] * length + units[2])


def _sums(x: Tensor, axis: int | None) -> Tensor:
    if axis is None or not x.dim():
        x, axis = x.reshape(1, -1), 0
    others = [dim for dim in range(x.dim()) if dim != axis]
    wide = x.to(sum_dtype(x))
    # On a CPU, comparisons of float64 are slow in compiled code.
    first = x
    for dim in others:
        first = first.narrow(dim, 0, 1)
    shift = torch.where(torch.isfinite(first), first, 0.0).to(wide.dtype)
    zeros, nonfinite = torch.where(x == 0, 1.0, 0.0), torch.where(torch.isfinite(x), 0.0, 1.0)
    difference = wide - shift
    square = difference.square()
    powers = (difference, square, square * difference, square.square())
    return torch.stack(
        [
            *[one.sum(others) for one in powers],
            wide.abs().amax(others),
            *[one.to(wide.dtype).sum(others) for one in (zeros, nonfinite)],
            shift.reshape(-1),
        ]
    )


class SumsTogether:
    """The sums of several tensors, put side by side: T tensors of all together S channels.

    Args:
        buffers: of each tensor, one at least.
        device: where the numbers are put together; by default where those of the first tensor are.
    """

    def __init__(self, buffers: Sequence[Buffers], device: torch.device | None = None) -> None:
        self._channels = [one.sums.shape[1] for one in buffers]
        self._sums, self._counts = ([*each] for each in zip(*buffers, strict=True))
        self._device = buffers[0].sums.device
        self._is_spread = any(one.device != self._device for one in self._counts)
        device = device or self._device
        # Metal has neither float64 nor what adds up the channels of a tensor: it is done later.
        self._is_done_later = device.type == "mps"
        device = torch.device("cpu") if self._is_done_later else device
        lengths = np.array(self._channels)
        starts = np.cumsum(lengths) - lengths  # the first channel of each tensor among all
        owners = np.repeat(np.arange(len(lengths)), lengths)
        self._starts, self._lengths, self._owners = (
            torch.from_numpy(one).to(device) for one in (starts, lengths, owners)
        )

    def begin_step(self) -> None:
        """Forget what was written before."""
        torch._foreach_zero_(self._counts)

    def has_run(self) -> bool:
        """Whether a pass has run since the step began; waits for the device."""
        return any(float(one[-1]) > 0 for one in self._counts)

    def moments(self) -> Tensor:
        """Return what `split` takes: the numbers of all tensors. Nothing is waited for."""
        sums, counts = self._sums, self._counts
        if self._is_spread:
            sums, counts = ([one.to(self._device) for one in each] for each in (sums, counts))
        rows, numbers = torch.cat(sums, 1), torch.stack(counts)
        if self._is_done_later:
            return torch.cat([rows.flatten(), numbers.flatten()])
        return self._moments(rows, numbers)

    def _moments(self, rows: Tensor, counts: Tensor) -> Tensor:
        first, second, third, fourth, largest, zeros, nonfinite, shift = rows
        size = (counts[:, 0] / self._lengths)[self._owners]
        deviations = (second - first.square() / size).clamp(min=0)
        sums = size * shift + first
        squares = torch.where(torch.isfinite(second), deviations + sums.square() / size, second)
        base = shift[self._starts]
        apart = shift - base[self._owners]  # the binomial formulas: powers about the base
        third_about = third + apart * (3 * second + apart * (3 * first + apart * size))
        fourth_about = fourth + apart * (
            4 * third + apart * (6 * second + apart * (4 * first + apart * size))
        )
        added = self._by_tensor("sum", third_about, fourth_about, zeros, nonfinite)
        whole = [base, *added[:2], *self._by_tensor("max", largest), *added[2:]]
        return torch.cat([sums, squares, deviations, *whole, counts.flatten()])

    def split(self, moments: Tensor) -> list[Numbers]:
        """Return the numbers of each tensor, of what `moments` returned; waits for the device."""
        channels, tensors = sum(self._channels), len(self._channels)
        moments = moments.cpu().double()
        if self._is_done_later:
            rows, of_counts = moments.split([_ROWS * channels, 3 * tensors])
            moments = self._moments(rows.reshape(_ROWS, -1), of_counts.reshape(-1, 3))
        numbers = moments.numpy()
        by_channel = numbers[: 3 * channels].reshape(3, channels)
        whole = numbers[3 * channels : -3 * tensors].reshape(6, tensors)
        counts = numbers[-3 * tensors :].reshape(tensors, 3).astype(np.int64).tolist()
        parts = np.split(by_channel, np.cumsum(self._channels)[:-1], axis=1)
        return [
            Numbers(np.concatenate([part.ravel(), of_tensor]), *counted)
            for part, of_tensor, counted in zip(parts, whole.T, counts, strict=True)
        ]

    def _by_tensor(self, reduction: str, *rows: Tensor) -> list[Tensor]:
        """Reduce the channels of each tensor: [T] for each of the rows [S]."""
        # Unsafe: it does not look at the lengths, which would wait for the device.
        return [
            torch.segment_reduce(row, reduction, lengths=self._lengths, unsafe=True) for row in rows
        ]
