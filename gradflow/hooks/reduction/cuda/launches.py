"""Plans and does the launches of the Triton kernels: one tensor alone, or many at once.

A tensor alone takes two launches. Up to `kernels.ROWS` tensors take one launch a type and layout,
one that combines their partial results, and a copy of the table that describes them. Neither reads
a value back. Memory is allocated for a group, not for a tensor: of a group, all values lie in one
buffer.

Triton's own way to a launch takes about 10 us, since it looks at every argument anew. A kernel that
was compiled once is kept here and launched directly, in about 4 us. That uses what Triton does not
promise: if it fails, Triton's own way is taken for the rest of the process.

Axis letters: C channel, A everything before it, S everything after; a channel has n = A S elements.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import triton
from torch import Tensor

from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.cuda import kernels
from gradflow.hooks.reduction.histograms import BINS
from gradflow.versions import release_of

DTYPES = tuple(kernels.DTYPES)
# Larger tensors would need 64-bit indices, whose division is slow.
MAX_ELEMENTS = 1 << 30
# Elements that a program reads at a time.
_TILE = 1024
# Channels side by side in a tile if they are adjacent in memory: 32 fill whole cache lines.
_SIDE_BY_SIDE = 32
# Programs for one tensor: enough to keep the largest GPU busy, few enough to merge.
_PROGRAMS = 1024
# Parts and channels that a merging program reads at a time.
_PARTS, _CHANNELS = 64, 16

# A kept kernel takes the constants too since Triton 3.3, and did not before.
_TAKES_CONSTANTS = release_of(triton.__version__) >= (3, 3)
_kept: dict[Any, Any] = {}
_keeps = [True]

Values = tuple[Tensor, Tensor | None]


class Layout(NamedTuple):
    """How programs share a contiguous tensor [A, C, S].

    Fields:
        channels, run, size: C, S and A S.
        steps, parts, blocks: a channel's elements are read in `parts` parts of `steps` tiles, the
            channels in `blocks` blocks.
        block, beside: the sides of a tile: elements of a channel, and channels.
        programs, mergers: how many programs reduce, and how many combine.
        partials, values: how many numbers they write.
    """

    channels: int
    run: int
    size: int
    steps: int
    parts: int
    blocks: int
    block: int
    beside: int
    programs: int
    mergers: int
    partials: int
    values: int


class Row(NamedTuple):
    """What the table says of a tensor; the kernels know the fields by their order."""

    address: int
    channels: int
    run: int
    size: int
    steps: int
    parts: int
    blocks: int
    first_program: int
    first_merger: int
    partials_at: int
    values_at: int


@lru_cache(maxsize=4096)
def layout(shape: tuple[int, ...], channel_axis: int | None) -> Layout:
    """Return how programs share a contiguous tensor; it depends on nothing but the shape."""
    elements = math.prod(shape)
    channels = run = 1
    if channel_axis is not None:
        channels = shape[channel_axis]
        # A single channel is one run, or many runs of one element, which need no division.
        run = math.prod(shape[channel_axis + 1 :]) if channels > 1 else 1
    size = elements // channels
    # Adjacent elements belong to one channel, or to different channels if run is 1.
    beside = _SIDE_BY_SIDE if run == 1 and channels > 1 else 1
    block = _TILE // beside
    blocks, tiles = -(-channels // beside), -(-size // block)
    steps = -(-tiles // min(tiles, max(1, _PROGRAMS // blocks)))
    parts = -(-tiles // steps)
    partials = channels + parts * (2 * channels + 5 * blocks)
    values, mergers = 3 * channels + 6, -(-channels // _CHANNELS)
    sides = (block, beside, blocks * parts, mergers, partials, values)
    return Layout(channels, run, size, steps, parts, blocks, *sides)


def launch(
    kernel: Any, programs: int, arguments: tuple[Any, ...], constants: tuple[Any, ...]
) -> None:
    """Launch `kernel` on the current device: tensors and integers first, then its constants."""
    first = arguments[0]
    key = (kernel, first.device.index, first.dtype, constants)
    kept = _kept.get(key)
    if kept is not None:
        try:
            kept[programs, 1, 1](*arguments, *(constants if _TAKES_CONSTANTS else ()))
        except (TypeError, AttributeError):
            _kept.clear()
            _keeps[0] = False
        else:
            return
    compiled = kernel[programs,](*arguments, *constants, **kernels.OPTIONS)
    if _keeps[0] and hasattr(compiled, "__getitem__"):
        _kept[key] = compiled


def means() -> str:
    """Return how kernels are launched, in words."""
    return "kept kernels" if _kept else "Triton's own launches"


def reduce(x: Tensor, channel_axis: int | None, *, histogram: bool = False) -> Values:
    """Return the values of `Moments` for x, [3 C + 6] float64, and its counts of magnitudes.

    The counts, [`histograms.BINS`] int64, are None unless asked for. The dtype of x is one of
    `DTYPES`; x has 1 to `MAX_ELEMENTS` elements. `channel_axis` is None without channels.
    """
    x, axis = cpu.in_memory_order(x, channel_axis)
    plan = layout(tuple(x.shape), axis)
    partials = torch.empty(plan.partials, dtype=torch.float64, device=x.device)
    result = torch.empty(plan.values, dtype=torch.float64, device=x.device)
    counts = _zero_counts(1, x.device)[0] if histogram else None
    sizes = plan[:6]
    sides = (plan.block, plan.beside, x.dtype == torch.float64, histogram)
    # Triton launches on the current device, which may differ from that of x.
    with torch.cuda.device_of(x):
        arguments = (x, partials, partials if counts is None else counts, *sizes)
        launch(kernels.reduce_one, plan.programs, arguments, sides)
        whole = (partials, result, plan.channels, plan.size, plan.parts, plan.blocks)
        launch(kernels.merge_one, plan.mergers, whole, (_PARTS, _CHANNELS))
    return result, counts


def reduce_group(items: Sequence[tuple[Tensor, int | None, bool]]) -> list[Values]:
    """Return what `reduce` returns for each (tensor, channel axis, histogram), of one device.

    The tensors must have been made on the current stream, or it must wait for them. The values lie
    in one buffer, the counts in another.
    """
    found: list[Values] = []
    for start in range(0, len(items), kernels.ROWS):
        found += _reduce_rows(items[start : start + kernels.ROWS])
    return found


def _reduce_rows(items: Sequence[tuple[Tensor, int | None, bool]]) -> list[Values]:
    ordered = [(*cpu.in_memory_order(x, axis), histogram) for x, axis, histogram in items]
    plan = plan_of(tuple((x.dtype, tuple(x.shape), axis, wanted) for x, axis, wanted in ordered))
    device = ordered[0][0].device
    result, counts = plan.run([x.data_ptr() for x, _, _ in ordered], device)
    values = result.split(plan.values)
    bins_of = [None] * len(items) if counts is None else counts.unbind()
    by_index = dict(zip(plan.order, zip(values, bins_of, strict=True), strict=True))
    return [
        (by_index[index][0], by_index[index][1] if histogram else None)
        for index, (_, _, histogram) in enumerate(ordered)
    ]


class GroupPlan:
    """How up to `kernels.ROWS` tensors of one device are reduced in a few launches.

    It is made from what is said of each tensor in `plan_of`.

    Fields:
        order: the places of the tensors, in the order of their values.
        values: how many values each of these has.
    """

    def __init__(self, tensors: Sequence["Kind"]) -> None:
        plans = [layout(shape, axis) for _, shape, axis, _ in tensors]
        kinds: dict[tuple[Any, ...], list[int]] = {}
        for index, ((dtype, _, _, histogram), plan) in enumerate(zip(tensors, plans, strict=True)):
            kinds.setdefault((dtype, plan.block, plan.beside, histogram), []).append(index)
        self.order = [index for indices in kinds.values() for index in indices]
        self.values = [plans[index].values for index in self.order]
        rows: list[Row] = []
        # By kind: its programs, its first and its last row, and the constants of the kernel.
        self._launches: list[tuple[int, int, int, tuple[Any, ...]]] = []
        self._mergers = self._partials = at_values = 0
        for (dtype, block, beside, histogram), indices in kinds.items():
            first, first_program = len(rows), 0
            for index in indices:
                plan = plans[index]
                place = (first_program, self._mergers, self._partials, at_values)
                rows.append(Row(0, *plan[:6], *place))
                first_program += plan.programs
                self._mergers += plan.mergers
                self._partials += plan.partials
                at_values += plan.values
            sides = (kernels.DTYPES[dtype], block, beside, dtype == torch.float64, histogram)
            self._launches.append((first_program, first, len(rows), sides))
        self._rows = np.array(rows, np.int64)
        self._counted = any(histogram for *_, histogram in tensors)

    def run(self, addresses: Sequence[int], device: torch.device) -> Values:
        """Return the values of all tensors, in `order`, and the counts of magnitudes of each.

        `addresses` are where they are, in memory order, on the `device`.
        """
        rows = self._rows.copy()
        rows[:, 0] = [addresses[index] for index in self.order]
        table = on_device(rows, device)
        partials = torch.empty(self._partials, dtype=torch.float64, device=device)
        result = torch.empty(sum(self.values), dtype=torch.float64, device=device)
        counts = _zero_counts(len(rows), device) if self._counted else None
        with torch.cuda.device_of(result):
            for programs, first, last, sides in self._launches:
                bins = counts if sides[-1] else partials
                launch(kernels.reduce_group, programs, (table, partials, bins, first, last), sides)
            whole = (table, partials, result, len(rows))
            launch(kernels.merge_group, self._mergers, whole, (_PARTS, _CHANNELS))
        return result, counts


# The dtype of a tensor, its shape and channel axis in memory order, and whether its magnitudes are
# counted.
Kind = tuple[torch.dtype, tuple[int, ...], int | None, bool]


def plans_of(tensors: Sequence[Kind]) -> list[GroupPlan]:
    """Return the plans for any number of tensors, for `kernels.ROWS` after `kernels.ROWS`."""
    return [
        plan_of(tuple(tensors[start : start + kernels.ROWS]))
        for start in range(0, len(tensors), kernels.ROWS)
    ]


@lru_cache(maxsize=1024)
def plan_of(tensors: tuple[Kind, ...]) -> GroupPlan:
    """Return the plan for tensors of these kinds; it depends on nothing else."""
    return GroupPlan(tensors)


def on_device(rows: np.ndarray, device: torch.device) -> Tensor:
    """Return the table on the device, without waiting for it."""
    pinned = torch.empty(rows.shape, dtype=torch.int64, pin_memory=device.type == "cuda")
    pinned.numpy()[:] = rows
    return pinned.to(device, non_blocking=True)


def _zero_counts(rows: int, device: torch.device) -> Tensor:
    return torch.zeros((rows, BINS), dtype=torch.int64, device=device)
