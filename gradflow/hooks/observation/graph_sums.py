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
    def of(cls, channels: int, device: torch.device) -> "Buffers":
        """Return buffers of zeros for a tensor of so many channels."""
        dtype = torch.float32 if device.type == "mps" else torch.float64
        shapes = (_ROWS, channels), (3,)
        return cls(*(torch.zeros(shape, dtype=dtype, device=device) for shape in shapes))


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


def write(x: Tensor, axis: int | None, buffers: Buffers) -> None:
    """Write the sums of x [N, ...] with the channel axis `axis`; None, if it has none."""
    buffers.sums.copy_(_sums(x, axis))
    place = torch.arange(3, device=x.device)
    length = x.shape[0] if x.dim() else 1
    buffers.counts.add_((place == 0) * x.numel() + (place == 1) * length + (place == 2))


def _sums(x: Tensor, axis: int | None) -> Tensor:
    if axis is None or not x.dim():
        x, axis = x.reshape(1, -1), 0
    others = [dim for dim in range(x.dim()) if dim != axis]
    wide = x.to(sum_dtype(x))
    shift = wide
    for dim in others:
        shift = shift.narrow(dim, 0, 1)
    shift = torch.where(torch.isfinite(shift), shift, 0.0)
    difference = wide - shift
    square = difference.square()
    # Truth values of float64 are slow to count on a CPU.
    zeros, nonfinite = torch.where(x == 0, 1.0, 0.0), torch.where(torch.isfinite(x), 0.0, 1.0)
    powers = (difference, square, square * difference, square.square())
    return torch.stack(
        [
            *(one.sum(others) for one in powers),
            wide.abs().amax(others),
            *(one.to(wide.dtype).sum(others) for one in (zeros, nonfinite)),
            shift.reshape(-1),
        ]
    )


class SumsTogether:
    """The sums of several tensors, put side by side: T tensors of all together S channels.

    Args:
        channels: of each tensor.
        device: on which they are.
    """

    def __init__(self, channels: Sequence[int], device: torch.device) -> None:
        self._channels = channels
        lengths = np.array(channels)
        starts = np.cumsum(lengths) - lengths  # the first channel of each tensor among all
        # Where a row of a channel is, if the sums of all tensors are in one vector.
        within = np.arange(lengths.sum()) - np.repeat(starts, lengths)
        first = np.repeat(_ROWS * starts, lengths) + within
        places = first + np.arange(_ROWS)[:, None] * np.repeat(lengths, lengths)

        def on_device(numbers: np.ndarray) -> Tensor:
            return torch.from_numpy(numbers).to(device)

        self._places = on_device(places)
        self._starts, self._lengths = on_device(starts), on_device(lengths)
        self._owners = on_device(np.repeat(np.arange(len(lengths)), lengths))

    def moments(self, buffers: Sequence[Buffers]) -> Tensor:
        """Return the numbers of all tensors as one vector, for `split`; nothing is waited for."""
        device = self._places.device
        flat = torch.cat([one.sums.to(device).flatten() for one in buffers])
        counts = torch.stack([one.counts.to(device) for one in buffers])
        first, second, third, fourth, largest, zeros, nonfinite, shift = flat[self._places]
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

    def split(self, numbers: np.ndarray) -> list[Numbers]:
        """Return the numbers of each tensor, of those that `moments` returned."""
        channels, tensors = sum(self._channels), len(self._channels)
        by_channel = numbers[: 3 * channels].reshape(3, channels)
        whole = numbers[3 * channels : -3 * tensors].reshape(6, tensors)
        counts = numbers[-3 * tensors :].reshape(tensors, 3).astype(np.int64).tolist()
        parts = np.split(by_channel, np.cumsum(self._channels)[:-1], axis=1)
        return [
            Numbers(np.concatenate([part.ravel(), of_tensor]), *of_counts)
            for part, of_tensor, of_counts in zip(parts, whole.T, counts, strict=True)
        ]

    def _by_tensor(self, reduction: str, *rows: Tensor) -> list[Tensor]:
        """Reduce the channels of each tensor: [T] for each of the rows [S]."""
        # Unsafe: it does not look at the lengths, which would wait for the device.
        return [
            torch.segment_reduce(row, reduction, lengths=self._lengths, unsafe=True) for row in rows
        ]
