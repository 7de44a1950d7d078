"""The Triton kernels that reduce tensors on CUDA: one alone, or up to `ROWS` in one launch.

Without a GPU, the tests run them in Triton's interpreter and compile them. Import this module
through `gradflow.hooks.reduction.fused`, which falls back to torch if Triton is missing or a launch
fails. `gradflow.hooks.reduction.cuda.launches` plans the launches and does them.

Each program reduces one part of a block of channels, and writes its sums, largest magnitude and
counts to its own entries of `partials`. A second launch combines these. No program waits for
another or adds to another's entries, and the parts depend only on the shape. So the same tensor
gives the same bits every time, on every GPU, alone or in a group. Counts of magnitudes alone are
added up where they belong: they are integers, whose order of addition does not matter. No value is
transferred to the CPU.

Sums are in float64, about an element of the channel, those of third and fourth powers about the
first element of the tensor, as in `gradflow.hooks.reduction.loops.compiled`.
Without the sign bit, the bits of floats have the order of the magnitudes, nan last, so the largest
magnitude and the counts are exact.

The tensors of a group are described by a table of integers, a row [`FIELDS`] for each, whose fields
are those of `launches.Row`. Their addresses are in it: the kernel casts them to pointers.

Axis letters: C channel, A everything before it, S everything after; a channel has n = A S elements.
"""

import torch
import triton
import triton.language as tl

from gradflow.hooks.reduction.histograms import BINS

# The types of tensors, as a program sees them.
DTYPES = {
    torch.float64: tl.float64,
    torch.float32: tl.float32,
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
}
# Fuse d * d + sum into one instruction. Triton's default depends on its version.
OPTIONS = {"enable_fp_fusion": True}
# Tensors of a group, and numbers in the row of each.
ROWS = 32
FIELDS = 11

_ROWS, _FIELDS = tl.constexpr(ROWS), tl.constexpr(FIELDS)
# Fields of a row that the kernels look for by number.
_FIRST_PROGRAM, _FIRST_MERGER = tl.constexpr(7), tl.constexpr(8)
_MANY = tl.constexpr(1 << 40)
_BINS, _LOWEST_EXPONENT = tl.constexpr(BINS), tl.constexpr(1023 - 126)
# `tl.histogram` needs a power of two; the last bin takes what does not belong to the tensor.
_POWER_OF_TWO, _UNWANTED = tl.constexpr(512), tl.constexpr(511)


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


@triton.jit
def _bits(value, wide: tl.constexpr):
    """Return the bits of |value|, a float64 if `wide`, else a float32."""
    if wide:
        return value.to(tl.int64, bitcast=True) & 0x7FFFFFFFFFFFFFFF
    else:
        return value.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def _bins(magnitude, wide: tl.constexpr):
    """Return the bin of each magnitude, as in `histograms.count`, from its bits."""
    if wide:
        exponent = (magnitude >> 52).to(tl.int32)
        bins = tl.minimum(tl.maximum(exponent - _LOWEST_EXPONENT + 2, 1), _BINS - 3)
    else:
        bins = (magnitude >> 23) + 1
    infinity: tl.constexpr = 0x7FF0000000000000 if wide else 0x7F800000
    bins = tl.where(magnitude == 0, 0, bins)
    bins = tl.where(magnitude == infinity, _BINS - 2, bins)
    return tl.where(magnitude > infinity, _BINS - 1, bins)


@triton.jit
def _reduce(  # noqa: PLR0915 - one read is one loop: parts of it would pass on all its sums
    x,
    partials,
    counts,
    program,
    channels,
    run,
    count,
    steps,
    parts,
    blocks,
    block: tl.constexpr,
    beside: tl.constexpr,
    wide: tl.constexpr,
    histogram: tl.constexpr,
):
    """Reduce a part of `beside` channels of x [A, C, S]: `steps` tiles [block, beside].

    `run` is S, `count` A S; `wide` is true for float64. Writes to `partials`: the channels' shifts
    k [C]; sum(x - k) and sum((x - k)^2) [2, parts, C]; then, [5, parts, blocks of channels], the
    sums of (x - k0)^3 and (x - k0)^4, with k0 the first channel's shift, the largest magnitude, and
    the counts of zeros and of non-finite elements. Adds the counts of magnitudes to `counts`.
    """
    infinity: tl.constexpr = 0x7FF0000000000000 if wide else 0x7F800000
    part, group = program // blocks, program % blocks
    c = group * beside + tl.arange(0, beside)[None, :]
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
    if histogram:
        found = tl.zeros([_POWER_OF_TWO], tl.int32)
    for step in range(steps):
        n = (part * steps + step) * block + tl.arange(0, block)[:, None]
        wanted = (n < count) & inside
        if beside > 1:
            place = x + n * channels + c  # a run is one element
        else:
            place = x + ((n // run) * channels + c) * run + n % run
        value = _widened(tl.load(place, mask=wanted, other=0.0))
        d = tl.where(wanted, value.to(tl.float64) - shift, 0.0)
        total += d
        square += d * d
        e = tl.where(wanted, value.to(tl.float64) - origin, 0.0)
        e2 = e * e
        cube += e2 * e
        fourth += e2 * e2
        magnitude = _bits(value, wide)
        largest = tl.maximum(largest, magnitude)
        zeros += (wanted & (magnitude == 0)).to(tl.int32)
        nonfinite += (magnitude >= infinity).to(tl.int32)
        if histogram:
            bins = tl.where(wanted, _bins(magnitude, wide), _UNWANTED)
            found += tl.histogram(tl.reshape(bins, [block * beside]), _POWER_OF_TWO)
    if part == 0:
        tl.store(partials + c, shift, mask=inside)
    sums = partials + channels + part * channels + c
    tl.store(sums, tl.sum(total, 0)[None, :], mask=inside)
    tl.store(sums + parts * channels, tl.sum(square, 0)[None, :], mask=inside)
    entry = partials + channels + 2 * parts * channels + part * blocks + group
    entries = parts * blocks
    tl.store(entry, tl.sum(tl.sum(cube, 0), 0))
    tl.store(entry + entries, tl.sum(tl.sum(fourth, 0), 0))
    bits = tl.max(tl.max(largest, 0), 0)
    extreme = bits.to(tl.float64 if wide else tl.float32, bitcast=True).to(tl.float64)
    tl.store(entry + 2 * entries, extreme)
    tl.store(entry + 3 * entries, tl.sum(tl.sum(zeros, 0), 0).to(tl.float64))
    tl.store(entry + 4 * entries, tl.sum(tl.sum(nonfinite, 0), 0).to(tl.float64))
    if histogram:
        bin = tl.arange(0, _POWER_OF_TWO)
        tl.atomic_add(counts + bin, found.to(tl.int64), mask=(bin < _BINS) & (found > 0))


@triton.jit
def _merge(
    partials,
    result,
    program,
    channels,
    count,
    parts,
    blocks,
    rows: tl.constexpr,
    columns: tl.constexpr,
):
    """Combine what `_reduce` wrote into result [3 C + 6], the values of `Moments`.

    Each program combines `columns` channels; the first also combines what is of the whole tensor.
    """
    c = program * columns + tl.arange(0, columns)
    inside = c < channels
    total = tl.zeros([rows, columns], tl.float64)
    square = tl.zeros([rows, columns], tl.float64)
    sums = partials + channels
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
    whole = count * tl.load(partials + c, mask=inside, other=0.0) + total
    # If the sum is not finite, its square would turn an infinite norm into nan.
    squares = tl.where(tl.abs(square) < float("inf"), deviations + whole * whole / count, square)
    tl.store(result + c, whole, mask=inside)
    tl.store(result + channels + c, squares, mask=inside)
    tl.store(result + 2 * channels + c, deviations, mask=inside)
    if program == 0:
        entries = parts * blocks
        tl.store(result + 3 * channels, tl.load(partials))
        _merge_whole(sums + 2 * parts * channels, result + 3 * channels, entries, rows * columns)


@triton.jit
def _merge_whole(partials, result, entries, size: tl.constexpr):
    """Write the sums of powers, largest magnitude and counts [5, entries] to result [1:]."""
    cube = tl.zeros([size], tl.float64)
    fourth = tl.zeros([size], tl.float64)
    largest = tl.zeros([size], tl.int64)
    zeros = tl.zeros([size], tl.float64)
    nonfinite = tl.zeros([size], tl.float64)
    for first in range(0, entries, size):
        entry = first + tl.arange(0, size)
        wanted = entry < entries
        place = partials + entry
        cube += tl.load(place, mask=wanted, other=0.0)
        fourth += tl.load(place + entries, mask=wanted, other=0.0)
        extreme = tl.load(place + 2 * entries, mask=wanted, other=0.0)
        largest = tl.maximum(largest, extreme.to(tl.int64, bitcast=True))
        zeros += tl.load(place + 3 * entries, mask=wanted, other=0.0)
        nonfinite += tl.load(place + 4 * entries, mask=wanted, other=0.0)
    tl.store(result + 1, tl.sum(cube, 0))
    tl.store(result + 2, tl.sum(fourth, 0))
    tl.store(result + 3, tl.max(largest, 0).to(tl.float64, bitcast=True))
    tl.store(result + 4, tl.sum(zeros, 0))
    tl.store(result + 5, tl.sum(nonfinite, 0))


# A kept kernel is launched for any integers: none is made for 1 or multiples of 16 alone.
@triton.jit(do_not_specialize=["x", "channels", "run", "count", "steps", "parts", "blocks"])
def reduce_one(
    x,
    partials,
    counts,
    channels,
    run,
    count,
    steps,
    parts,
    blocks,
    block: tl.constexpr,
    beside: tl.constexpr,
    wide: tl.constexpr,
    histogram: tl.constexpr,
):
    """`_reduce` for one tensor; a program for each part of each block of channels."""
    _reduce(
        x,
        partials,
        counts,
        tl.program_id(0),
        channels,
        run,
        count,
        steps,
        parts,
        blocks,
        block,
        beside,
        wide,
        histogram,
    )


@triton.jit(do_not_specialize=["channels", "count", "parts", "blocks"])
def merge_one(
    partials,
    result,
    channels,
    count,
    parts,
    blocks,
    rows: tl.constexpr,
    columns: tl.constexpr,
):
    """`_merge` for one tensor."""
    _merge(partials, result, tl.program_id(0), channels, count, parts, blocks, rows, columns)


@triton.jit
def _row_of(table, first, last, field: tl.constexpr):
    """Return which of the rows from `first` to before `last` this program works for."""
    row = first + tl.arange(0, _ROWS)
    starts = tl.load(table + row * _FIELDS + field, mask=row < last, other=_MANY)
    return first + tl.sum((starts <= tl.program_id(0)).to(tl.int32), 0) - 1


@triton.jit(do_not_specialize=["table", "first", "last"])
def reduce_group(
    table,
    partials,
    counts,
    first,
    last,
    dtype: tl.constexpr,
    block: tl.constexpr,
    beside: tl.constexpr,
    wide: tl.constexpr,
    histogram: tl.constexpr,
):
    """`_reduce` for the tensors in the rows from `first` to before `last`, all of one `dtype`.

    With `histogram`, row r of `counts` [rows, BINS] is of the tensor in row r of the table.
    """
    number = _row_of(table, first, last, _FIRST_PROGRAM)
    row = table + number * _FIELDS
    _reduce(
        tl.load(row).to(tl.pointer_type(dtype)),
        partials + tl.load(row + 9),
        counts + number * _BINS,
        (tl.program_id(0) - tl.load(row + _FIRST_PROGRAM)).to(tl.int32),
        tl.load(row + 1).to(tl.int32),
        tl.load(row + 2).to(tl.int32),
        tl.load(row + 3).to(tl.int32),
        tl.load(row + 4).to(tl.int32),
        tl.load(row + 5).to(tl.int32),
        tl.load(row + 6).to(tl.int32),
        block,
        beside,
        wide,
        histogram,
    )


@triton.jit(do_not_specialize=["table", "last"])
def merge_group(table, partials, result, last, rows: tl.constexpr, columns: tl.constexpr):
    """`_merge` for the tensors in the rows before `last`, of any types."""
    row = table + _row_of(table, 0, last, _FIRST_MERGER) * _FIELDS
    _merge(
        partials + tl.load(row + 9),
        result + tl.load(row + 10),
        (tl.program_id(0) - tl.load(row + _FIRST_MERGER)).to(tl.int32),
        tl.load(row + 1).to(tl.int32),
        tl.load(row + 3).to(tl.int32),
        tl.load(row + 5).to(tl.int32),
        tl.load(row + 6).to(tl.int32),
        rows,
        columns,
    )
