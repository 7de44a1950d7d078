"""A loop over the moments of many tensors, compiled by numba at first use.

Import this module through `sums`, which does without it if numba is missing. The sums of numbers in
a row are taken in the order of `np.add.reduceat`, so that they are the same to the last bit.
"""

import numpy as np
from numba import njit

_loop = njit(nogil=True, cache=True, error_model="numpy")


@_loop
def _pairwise(x, begin, count):
    """The sum of `count` elements of x from `begin` on, as numpy adds them up (pairwise)."""
    if count < 8:
        total = -0.0
        for i in range(begin, begin + count):
            total += x[i]
        return total
    if count > 128:
        half = count // 2
        half -= half % 8
        return _pairwise(x, begin, half) + _pairwise(x, begin + half, count - half)
    a, b, c, d = x[begin], x[begin + 1], x[begin + 2], x[begin + 3]
    e, f, g, h = x[begin + 4], x[begin + 5], x[begin + 6], x[begin + 7]
    whole = count - count % 8
    for i in range(begin + 8, begin + whole, 8):
        a += x[i]
        b += x[i + 1]
        c += x[i + 2]
        d += x[i + 3]
        e += x[i + 4]
        f += x[i + 5]
        g += x[i + 6]
        h += x[i + 7]
    total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for i in range(begin + whole, begin + count):
        total += x[i]
    return total


@_loop
def _sum(x, begin, count):
    """The sum of elements as `np.add.reduceat` takes it: the first one, and the sum of the rest."""
    if count == 1:
        return x[begin]
    return x[begin] + _pairwise(x, begin + 1, count - 1)


@_loop
def put_sums(flat, ends, counts, elements, rows, out):
    """Write what `fused.sums_in` returns to the columns `rows` of `out` [12, R]."""
    scratch = np.empty(counts.max())
    for t in range(ends.size):
        count, row = counts[t], rows[t]
        squares = ends[t] - 2 * count - 6
        sums, deviations = squares - count, squares + count
        by_channel = elements[t] / count
        total = _sum(flat, sums, count)
        mean = total / elements[t]
        out[0, row] = total
        out[1, row] = _sum(flat, squares, count)
        dead = 0
        for c in range(count):
            of_channel = flat[sums + c] / by_channel
            scratch[c] = of_channel * of_channel
            dead += flat[squares + c] == 0
        out[2, row] = _sum(scratch, 0, count)
        for c in range(count):
            scratch[c] = flat[deviations + c] / by_channel
        out[3, row] = _sum(scratch, 0, count)
        for c in range(count):
            apart = flat[sums + c] / by_channel - mean
            scratch[c] = apart * apart
        out[4, row] = _sum(scratch, 0, count)
        out[5, row] = dead
        for i in range(6):
            out[6 + i, row] = flat[ends[t] - 6 + i]
