"""Loops over tensors on the CPU that read each element once, compiled by numba at first use.

The machine code is kept in numba's cache folder, so only the first run on a machine compiles (a few
seconds). Import this module through `gradflow.hooks.reduction.cpu`, which falls back to torch if
numba is missing or has no folder for its cache.

Every loop takes flat arrays. `bits` is the memory of `x` read as integers. Without the sign bit,
these integers have the order of the magnitudes: 0 first, infinity and nan last. So the counts and
the largest magnitude are exact and cheap. `layout` [3] holds the mask of all bits but the sign, the
number of mantissa bits, and the bits of infinity. `run` is the number of consecutive elements of
one channel. All sums are in float64.

`sums` [2 C + 2] holds sum(x - k) of each channel, then sum((x - k)^2) of each, where k is the
channel's shift, then sum((x - k0)^3) and sum((x - k0)^4) over the whole tensor, where k0 is the
origin: the shift of the first channel.
"""

import numpy as np
from numba import njit

# Elements processed together: they fit in the first-level cache. `cpu` has the same number.
BLOCK = 4096
# Runs of fewer elements are too short for vector instructions: whole rows are added up in their
# place, if the sums of a row, of at most so many elements, fit in the second-level cache.
SHORT = 20
WIDE = 1 << 15

# Sums may be reordered for vector instructions; infinities and nans behave as usual.
_loop = njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})


@_loop
def _shifts(x, channels, run):
    """Return one element of each channel to subtract, so that sums of squares do not cancel: [C].

    Any element x0 of a channel of n elements satisfies (x0 - mean)^2 <= n variance. So sums about
    x0 are at most n times those about the mean, and rarely more than a few times.
    """
    shifts = np.empty(channels)
    for c in range(channels):
        value = np.float64(x[c * run])
        shifts[c] = value if np.isfinite(value) else 0.0
    return shifts


@_loop
def _count_exponents(patterns, layout, counts):
    """Add to `counts` [4, B] how often each biased exponent occurs.

    Four counters are used in turn: with one, equal exponents in a row would wait for each other.
    """
    mask, shift = layout[0], layout[1]
    whole = patterns.size - patterns.size % 4
    for i in range(0, whole, 4):
        four = patterns[i : i + 4]
        counts[0, np.uint64((four[0] & mask) >> shift)] += 1
        counts[1, np.uint64((four[1] & mask) >> shift)] += 1
        counts[2, np.uint64((four[2] & mask) >> shift)] += 1
        counts[3, np.uint64((four[3] & mask) >> shift)] += 1
    for i in range(whole, patterns.size):
        counts[0, np.uint64((patterns[i] & mask) >> shift)] += 1


@_loop
def _magnitudes(patterns, layout):
    """Return the bits of the largest magnitude, and the count of zeros."""
    zeros = np.int32(0)
    largest = patterns.dtype.type(0)
    for i in range(patterns.size):
        # Without these conversions, numba would widen every integer to 64 bits.
        magnitude = patterns.dtype.type(patterns[i] & layout[0])
        zeros = np.int32(zeros + np.int32(magnitude == 0))
        largest = max(largest, magnitude)
    return largest, zeros


@_loop
def _reduce_runs(x, bits, layout, channels, run, first, last, counts, sums):
    """Reduce runs `first` to `last` of x: `run` elements of one channel each, channels in turn.

    Adds to `sums`; adds exponents to `counts` unless it is empty. Each block of runs is read once
    for the sums, and again for the magnitudes while it is in the cache. Third and fourth powers are
    taken about the channel's shift, at no further subtraction, and moved to the origin by run.

    Returns the bits of the largest magnitude, and the count of zeros.
    """
    shifts = _shifts(x, channels, run)
    cubes = 0.0
    fourths = 0.0
    zeros = 0
    largest = bits.dtype.type(0)
    c = first % channels
    together = max(1, BLOCK // run)
    for begin in range(first, last, together):
        end = min(begin + together, last)
        for r in range(begin, end):
            # With a slice, the inner loop needs no index checks.
            values = x[r * run : (r + 1) * run]
            k = shifts[c]
            total = 0.0
            square = 0.0
            cube = 0.0
            fourth = 0.0
            for i in range(values.size):
                d = np.float64(values[i]) - k
                d2 = d * d
                total += d
                square += d2
                cube += d2 * d
                fourth += d2 * d2
            sums[c] += total
            sums[channels + c] += square
            s = k - shifts[0]
            cubes += cube + s * (3.0 * square + s * (3.0 * total + s * values.size))
            fourths += fourth + s * (
                4.0 * cube + s * (6.0 * square + s * (4.0 * total + s * values.size))
            )
            c = c + 1 if c + 1 < channels else 0
        patterns = bits[begin * run : end * run]
        largest_here, zeros_here = _magnitudes(patterns, layout)
        if counts.size:
            _count_exponents(patterns, layout, counts)
        zeros += zeros_here
        largest = max(largest, largest_here)
    sums[2 * channels] += cubes
    sums[2 * channels + 1] += fourths
    return largest, zeros


@_loop
def _reduce_rows(x, bits, layout, channels, run, first, last, counts, sums):
    """Like `_reduce_runs`, for rows `first` to `last`: each has one run of every channel.

    For short runs: the sums of each place in a row are kept apart until the end, so that the inner
    loop goes over a whole row.
    """
    shifts = _shifts(x, channels, run)
    origin = shifts[0]
    width = channels * run
    shift_of = np.repeat(shifts, run)
    totals = np.zeros(width)
    squares = np.zeros(width)
    cubes = 0.0
    fourths = 0.0
    zeros = 0
    largest = bits.dtype.type(0)
    together = max(1, BLOCK // width)
    for begin in range(first, last, together):
        end = min(begin + together, last)
        for r in range(begin, end):
            values = x[r * width : (r + 1) * width]
            cube = 0.0
            fourth = 0.0
            for i in range(width):
                value = np.float64(values[i])
                d = value - shift_of[i]
                totals[i] += d
                squares[i] += d * d
                e = value - origin
                e2 = e * e
                cube += e2 * e
                fourth += e2 * e2
            cubes += cube
            fourths += fourth
        patterns = bits[begin * width : end * width]
        largest_here, zeros_here = _magnitudes(patterns, layout)
        if counts.size:
            _count_exponents(patterns, layout, counts)
        zeros += zeros_here
        largest = max(largest, largest_here)
    for c in range(channels):
        for i in range(c * run, (c + 1) * run):
            sums[c] += totals[i]
            sums[channels + c] += squares[i]
    sums[2 * channels] += cubes
    sums[2 * channels + 1] += fourths
    return largest, zeros


@_loop
def _reduce_short_runs(x, bits, layout, channels, run, first, last, counts, sums):
    """Like `_reduce_runs`: whole rows by `_reduce_rows`, and the runs before and after them."""
    begin = -(-first // channels)
    end = last // channels
    if begin >= end:
        return _reduce_runs(x, bits, layout, channels, run, first, last, counts, sums)
    largest, zeros = _reduce_rows(x, bits, layout, channels, run, begin, end, counts, sums)
    for one, other in ((first, begin * channels), (end * channels, last)):
        if one < other:
            largest_here, zeros_here = _reduce_runs(
                x, bits, layout, channels, run, one, other, counts, sums
            )
            zeros += zeros_here
            largest = max(largest, largest_here)
    return largest, zeros


@_loop
def complete(x, bits, layout, channels, run, sums, largest, zeros, result):
    """Compute `result`, the values [3 C + 6] of `Moments`, from what the loops returned."""
    shifts = _shifts(x, channels, run)
    count = x.size / channels
    for c in range(channels):
        total = sums[c]
        square = sums[channels + c]
        deviations = square - total * total / count
        if deviations < 0:
            deviations = 0.0
        whole = count * shifts[c] + total
        result[c] = whole
        # If the sum is not finite, its square would turn an infinite norm into nan.
        finite = np.isfinite(square)
        result[channels + c] = deviations + whole * whole / count if finite else square
        result[2 * channels + c] = deviations
    nonfinite = 0
    if largest >= layout[2]:
        for i in range(bits.size):
            nonfinite += (bits[i] & layout[0]) >= layout[2]
    pattern = np.empty(1, bits.dtype)
    pattern[0] = largest
    result[3 * channels] = shifts[0]
    result[3 * channels + 1] = sums[2 * channels]
    result[3 * channels + 2] = sums[2 * channels + 1]
    result[3 * channels + 3] = pattern.view(x.dtype)[0]
    result[3 * channels + 4] = zeros
    result[3 * channels + 5] = nonfinite


@_loop
def reduce_part(x, bits, layout, channels, run, first, last, counts, sums):
    """Reduce runs, or rows if `run` is 1, from `first` to `last`: see `_reduce_runs`."""
    if run == 1 and channels > 1:
        return _reduce_rows(x, bits, layout, channels, run, first, last, counts, sums)
    if run < SHORT and channels > 1 and channels * run <= WIDE:
        return _reduce_short_runs(x, bits, layout, channels, run, first, last, counts, sums)
    return _reduce_runs(x, bits, layout, channels, run, first, last, counts, sums)


@_loop
def reduce_whole(x, bits, layout, channels, run, pieces, counts, result):
    """Reduce all of x in one thread; write `result` as `complete` does."""
    sums = np.zeros(2 * channels + 2)
    largest, zeros = reduce_part(x, bits, layout, channels, run, 0, pieces, counts, sums)
    complete(x, bits, layout, channels, run, sums, largest, zeros, result)


@_loop
def inner_products(x, y):
    """<x, x>, <x, y> and <y, y>."""
    xx = 0.0
    xy = 0.0
    yy = 0.0
    for i in range(x.size):
        a = np.float64(x[i])
        b = np.float64(y[i])
        xx += a * a
        xy += a * b
        yy += b * b
    return xx, xy, yy


@_loop
def square_sum(x):
    """<x, x>."""
    total = 0.0
    for i in range(x.size):
        a = np.float64(x[i])
        total += a * a
    return total


@_loop
def copy_and_square_sum(x, kept):
    """Copy x into `kept`, and return <x, x>."""
    total = 0.0
    for i in range(x.size):
        kept[i] = x[i]
        a = np.float64(x[i])
        total += a * a
    return total


@_loop
def square_distance(x, y):
    """<x - y, x - y>."""
    total = 0.0
    for i in range(x.size):
        d = np.float64(x[i]) - np.float64(y[i])
        total += d * d
    return total


@_loop
def junction_products(w, s, b):
    """<g,g>, <s,s>, <b,b>, <s,b>, <s,g>, <w,w>, <r,r> with g = s + b and r = w - g."""
    gg = 0.0
    ss = 0.0
    bb = 0.0
    sb = 0.0
    sg = 0.0
    ww = 0.0
    rr = 0.0
    for i in range(w.size):
        whole = np.float64(w[i])
        skip = np.float64(s[i])
        branch = np.float64(b[i])
        both = skip + branch
        rest = whole - both
        gg += both * both
        ss += skip * skip
        bb += branch * branch
        sb += skip * branch
        sg += skip * both
        ww += whole * whole
        rr += rest * rest
    return gg, ss, bb, sb, sg, ww, rr
