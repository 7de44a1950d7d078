"""Triton kernels that compute the moments of a tensor on a GPU from one read, and their launch.

They were tested on an H100 against torch on the GPU and the loops on the CPU. Without a GPU, the
tests run them in Triton's interpreter and compile them. Import this module through
`gradflow.hooks.reduction.fused`, which falls back to torch if Triton is missing or a launch fails.

`reduce_part` reads the tensor: each program reduces one part of a block of channels, and writes its
sums, largest magnitude and counts to its own entries. `merge` combines these. No program waits for
another or adds to another's entries, and the parts depend only on the shape. So the same tensor
gives the same bits every time, on every GPU. No value is transferred to the CPU.

Sums are in float64, about an element of the channel, those of third and fourth powers about the
first element of the tensor, as in `gradflow.hooks.reduction.compiled`.
Without the sign bit, the bits of floats have the order of the magnitudes, nan last, so the largest
magnitude and the counts are exact.

Axis letters: C channel, A everything before it, S everything after; a channel has n = A S elements.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# Fuse d * d + sum into one instruction. Triton's default depends on its version.
OPTIONS = {"enable_fp_fusion": True}
# Larger tensors would need 64-bit indices, whose division is slow.
MAX_ELEMENTS = 1 << 30
# Elements that a program of `reduce_part` reads at a time.
_TILE = 1024
# Channels side by side in a tile if they are adjacent in memory: 32 fill whole cache lines.
_SIDE_BY_SIDE = 32
# Programs for one tensor: enough to keep the largest GPU busy, few enough to merge.
_PROGRAMS = 1024
# Parts and channels that a program of `merge` reads at a time.
_PARTS, _CHANNELS = 64, 16


@triton.jit
def _widened(value):
    """Return float64 unchanged and other floats as float32, all exactly."""
    if value.dtype == tl.float64:
        return value
    elif value.dtype == tl.bfloat16:
        # Its bits are the upper half of a float32. A conversion may lose numbers below 2^-126.
        return (value.to(tl.int16, bitcast=True).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    else:
        return value.to(tl.float32)


@triton.jit
def _shifts(x, c, inside, run):
    """Return one element of each channel to subtract, so that sums of squares do not cancel."""
    shift = _widened(tl.load(x + c * run, mask=inside, other=0.0)).to(tl.float64)
    return tl.where(tl.abs(shift) < float("inf"), shift, 0.0)


# Triton recompiles for special integers (1, multiples of 16), which is no gain for these two.
@triton.jit(do_not_specialize=["count", "steps"])
def reduce_part(
    x,
    sums,
    powers,
    extremes,
    channels,
    run,
    count,
    steps,
    block: tl.constexpr,
    beside: tl.constexpr,
    wide: tl.constexpr,
):
    """Reduce a part of `beside` channels of x [A, C, S]: `steps` tiles of [block, beside] elements.

    Writes sum(x - k) and sum((x - k)^2), with k the channel's shift, to sums [2, parts, C]; the
    sums of (x - k0)^3 and (x - k0)^4, with k0 the first channel's, to powers [2, parts, blocks of
    channels]; the bits of the largest magnitude and the counts of zeros and of non-finite elements
    to extremes [3, parts, blocks]. `run` is S, `count` A S; `wide` is true for float64.
    """
    part = tl.program_id(1)
    c = tl.program_id(0) * beside + tl.arange(0, beside)[None, :]
    inside = c < channels
    shift = _shifts(x, c, inside, run)
    origin = _shifts(x, 0 * c, c >= 0, run)
    total = tl.zeros([block, beside], tl.float64)
    square = tl.zeros([block, beside], tl.float64)
    cube = tl.zeros([block, beside], tl.float64)
    fourth = tl.zeros([block, beside], tl.float64)
    largest = tl.zeros([block, beside], tl.int64 if wide else tl.int32)
    zeros = tl.zeros([block, beside], tl.int32)
    nonfinite = tl.zeros([block, beside], tl.int32)
    for step in range(steps):
        n = (part * steps + step) * block + tl.arange(0, block)[:, None]
        wanted = (n < count) & inside
        place = x + ((n // run) * channels + c) * run + n % run
        value = _widened(tl.load(place, mask=wanted, other=0.0))
        d = tl.where(wanted, value.to(tl.float64) - shift, 0.0)
        total += d
        square += d * d
        e = tl.where(wanted, value.to(tl.float64) - origin, 0.0)
        e2 = e * e
        cube += e2 * e
        fourth += e2 * e2
        if wide:
            magnitude = value.to(tl.int64, bitcast=True) & 0x7FFFFFFFFFFFFFFF
            infinite = magnitude >= 0x7FF0000000000000
        else:
            magnitude = value.to(tl.int32, bitcast=True) & 0x7FFFFFFF
            infinite = magnitude >= 0x7F800000
        largest = tl.maximum(largest, magnitude)
        zeros += (wanted & (magnitude == 0)).to(tl.int32)
        nonfinite += infinite.to(tl.int32)
    parts = tl.num_programs(1)
    sums_here = sums + part * channels + c
    tl.store(sums_here, tl.sum(total, 0)[None, :], mask=inside)
    tl.store(sums_here + parts * channels, tl.sum(square, 0)[None, :], mask=inside)
    blocks = tl.num_programs(0)
    powers_here = powers + part * blocks + tl.program_id(0)
    tl.store(powers_here, tl.sum(tl.sum(cube, 0), 0))
    tl.store(powers_here + parts * blocks, tl.sum(tl.sum(fourth, 0), 0))
    entry = extremes + part * blocks + tl.program_id(0)
    tl.store(entry, tl.max(tl.max(largest, 0), 0).to(tl.int64))
    tl.store(entry + parts * blocks, tl.sum(tl.sum(zeros, 0), 0).to(tl.int64))
    tl.store(entry + 2 * parts * blocks, tl.sum(tl.sum(nonfinite, 0), 0).to(tl.int64))


@triton.jit(do_not_specialize=["channels", "run", "count", "parts", "entries"])
def merge(
    x,
    sums,
    powers,
    extremes,
    result,
    channels,
    run,
    count,
    parts,
    entries,
    rows: tl.constexpr,
    columns: tl.constexpr,
    wide: tl.constexpr,
):
    """Combine the output of `reduce_part` into result [3 C + 6], the values of `fused.Moments`.

    Each program combines `columns` channels; the first also combines the powers [2, entries] and
    the extremes [3, entries].
    """
    c = tl.program_id(0) * columns + tl.arange(0, columns)
    inside = c < channels
    total = tl.zeros([rows, columns], tl.float64)
    square = tl.zeros([rows, columns], tl.float64)
    for first in range(0, parts, rows):
        part = first + tl.arange(0, rows)[:, None]
        wanted = (part < parts) & inside[None, :]
        place = sums + part * channels + c[None, :]
        total += tl.load(place, mask=wanted, other=0.0)
        square += tl.load(place + parts * channels, mask=wanted, other=0.0)
    total = tl.sum(total, 0)
    square = tl.sum(square, 0)
    deviations = square - total * total / count
    deviations = tl.where(deviations < 0, 0.0, deviations)
    whole = count * _shifts(x, c, inside, run) + total
    # If the sum is not finite, its square would turn an infinite norm into nan.
    squares = tl.where(tl.abs(square) < float("inf"), deviations + whole * whole / count, square)
    tl.store(result + c, whole, mask=inside)
    tl.store(result + channels + c, squares, mask=inside)
    tl.store(result + 2 * channels + c, deviations, mask=inside)
    if tl.program_id(0) == 0:
        _merge_powers(x, powers, result + 3 * channels, entries, rows * columns)
        _merge_extremes(extremes, result + 3 * channels + 3, entries, rows * columns, wide)


@triton.jit
def _merge_powers(x, powers, result, entries, size: tl.constexpr):
    """Write the first channel's shift, and the sums of third and fourth powers, to result [3]."""
    place = tl.arange(0, 1)
    tl.store(result + place, _shifts(x, place, place == 0, 1))
    cube = tl.zeros([size], tl.float64)
    fourth = tl.zeros([size], tl.float64)
    for first in range(0, entries, size):
        entry = first + tl.arange(0, size)
        wanted = entry < entries
        cube += tl.load(powers + entry, mask=wanted, other=0.0)
        fourth += tl.load(powers + entries + entry, mask=wanted, other=0.0)
    tl.store(result + 1, tl.sum(cube, 0))
    tl.store(result + 2, tl.sum(fourth, 0))


@triton.jit
def _merge_extremes(extremes, result, entries, size: tl.constexpr, wide: tl.constexpr):
    """Write the largest magnitude and the counts of zeros and non-finite elements to result [3]."""
    largest = tl.zeros([size], tl.int64)
    zeros = tl.zeros([size], tl.int64)
    nonfinite = tl.zeros([size], tl.int64)
    for first in range(0, entries, size):
        entry = first + tl.arange(0, size)
        wanted = entry < entries
        largest = tl.maximum(largest, tl.load(extremes + entry, mask=wanted, other=0))
        zeros += tl.load(extremes + entries + entry, mask=wanted, other=0)
        nonfinite += tl.load(extremes + 2 * entries + entry, mask=wanted, other=0)
    bits = tl.max(largest, 0)
    if wide:
        magnitude = bits.to(tl.float64, bitcast=True)
    else:
        magnitude = bits.to(tl.int32).to(tl.float32, bitcast=True).to(tl.float64)
    tl.store(result, magnitude)
    tl.store(result + 1, tl.sum(zeros, 0).to(tl.float64))
    tl.store(result + 2, tl.sum(nonfinite, 0).to(tl.float64))


def reduce(x: Tensor, channel_axis: int | None) -> Tensor:
    """Return the values of `fused.Moments` for a contiguous x [A, C, S]: [3 C + 6] float64.

    The dtype of x is one of `DTYPES`; x has 1 to `MAX_ELEMENTS` elements. `channel_axis` is not
    negative; None without channels.
    """
    channels = run = 1
    if channel_axis is not None:
        channels = x.shape[channel_axis]
        # A single channel is one run, or many runs of one element, which need no division.
        run = math.prod(x.shape[channel_axis + 1 :]) if channels > 1 else 1
    count = x.numel() // channels
    # Adjacent elements belong to one channel, or to different channels if run is 1.
    beside = min(_SIDE_BY_SIDE, triton.next_power_of_2(channels)) if run == 1 else 1
    block = _TILE // beside
    blocks, tiles = triton.cdiv(channels, beside), triton.cdiv(count, block)
    steps = triton.cdiv(tiles, min(tiles, max(1, _PROGRAMS // blocks)))
    parts = triton.cdiv(tiles, steps)
    sums = x.new_empty((2, parts, channels), dtype=torch.float64)
    powers = x.new_empty((2, parts, blocks), dtype=torch.float64)
    extremes = x.new_empty((3, parts, blocks), dtype=torch.int64)
    result = x.new_empty(3 * channels + 6, dtype=torch.float64)
    wide = x.dtype == torch.float64
    # Triton launches on the current device, which may differ from that of x.
    with torch.cuda.device_of(x):
        reduce_part[(blocks, parts)](
            x, sums, powers, extremes, channels, run, count, steps, block, beside, wide, **OPTIONS
        )
        merge[(triton.cdiv(channels, _CHANNELS),)](
            x,
            sums,
            powers,
            extremes,
            result,
            channels,
            run,
            count,
            parts,
            parts * blocks,
            _PARTS,
            _CHANNELS,
            wide,
            **OPTIONS,
        )
    return result
