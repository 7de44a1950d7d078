"""Loops over many small tensors on the CPU, given by a table of addresses, in one compiled call.

Each tensor is reduced by the loops of `compiled`, in the same order of sums, so that its numbers
have the same bits as if it were reduced alone. Import this module through
`gradflow.hooks.reduction.cpu`.
"""

import numpy as np
from numba import carray, njit  # type: ignore[attr-defined]

from gradflow.hooks.reduction.loops import compiled
from gradflow.hooks.reduction.loops.addresses import pointer


@njit(nogil=True, cache=True)
def _reduce_each(table, layout, counts, results, floating, integer):
    """Reduce the tensors of `table` [T, 5]: address, size, channels, run and pieces of each.

    `results` gets the values [3 C + 6] of one after the other, `counts` [T, 4, B] their exponents.
    """
    end = 0
    for i in range(len(table)):
        address, size, channels, run, pieces = table[i]
        x = carray(pointer(address), (size,), floating)
        bits = carray(pointer(address), (size,), integer)
        begin, end = end, end + 3 * channels + 6
        compiled.reduce_whole(x, bits, layout, channels, run, pieces, counts[i], results[begin:end])


@njit(nogil=True, cache=True)
def _junctions_of_each(table, results, floating):
    """Compute `compiled.junction_products` of each row of `table` [T, 4]: size, at w, at s, at b.

    `results` is [T, 7].
    """
    for i in range(len(table)):
        size, at_w, at_s, at_b = table[i]
        w = carray(pointer(at_w), (size,), floating)
        s = carray(pointer(at_s), (size,), floating)
        b = carray(pointer(at_b), (size,), floating)
        found = compiled.junction_products(w, s, b)
        for j in range(7):
            results[i, j] = found[j]


@njit(nogil=True, cache=True)
def reduce_float32(table, layout, counts, results):
    """Reduce the tensors of float32 that `table` tells, see `_reduce_each`."""
    _reduce_each(table, layout, counts, results, np.float32, np.int32)


@njit(nogil=True, cache=True)
def reduce_float64(table, layout, counts, results):
    """Reduce the tensors of float64 that `table` tells, see `_reduce_each`."""
    _reduce_each(table, layout, counts, results, np.float64, np.int64)


@njit(nogil=True, cache=True)
def junctions_float32(table, results):
    """Compute the products of gradients of float32 that `table` tells."""
    _junctions_of_each(table, results, np.float32)


@njit(nogil=True, cache=True)
def junctions_float64(table, results):
    """Compute the products of gradients of float64 that `table` tells."""
    _junctions_of_each(table, results, np.float64)
