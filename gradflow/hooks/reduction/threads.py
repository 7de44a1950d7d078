"""Shares the loops of `compiled` out over the threads that torch itself works with.

torch's OpenMP threads spin for a while after their work, so that threads of another pool find no
core free. A task is therefore handed to the same OpenMP runtime: its entry point `GOMP_parallel`
calls one compiled function in every thread of the calling thread's team. Import this module through
`gradflow.hooks.reduction.cpu`, which copes where numba or the runtime is missing.

A task is cut into shares that depend on the number of threads alone; which thread takes which share
is left to chance, and each share has a place of its own for its result. So a sum has the same bits
whenever it is repeated with as many threads.
"""

import ctypes

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, njit, types  # type: ignore[attr-defined]
from numba.extending import intrinsic

from gradflow.hooks.reduction import compiled

# By name of the loop, how many sums it returns.
SUM_COUNTS = {
    "reduce_part": 0,
    "square_sum": 1,
    "inner_products": 3,
    "copy_and_square_sum": 1,
    "square_distance": 1,
    "junction_products": 7,
}
LOOPS = tuple(SUM_COUNTS)
REDUCE, SQUARE_SUM, INNER, COPY, DISTANCE, JUNCTION = range(len(LOOPS))
MAX_SUMS = max(SUM_COUNTS.values())


# The fields of a task, int64 each; those that begin with `at_` are addresses.
FIELDS = (
    "at_next_share",  # the next share to take [1]
    "shares",
    "loop",  # place in LOOPS
    "size",  # elements of x, y and z
    "pieces",  # what is shared out: elements, or runs or rows of `compiled.reduce_part`
    "channels",
    "run",
    "bins",
    "at_x",  # [size]
    "at_y",
    "at_z",
    "at_layout",  # [3], see `compiled`
    "at_counts",  # [shares, 4, bins]
    "at_sums",  # [shares, 2, channels]
    "at_results",  # [shares, MAX_SUMS]
    "at_extremes",  # [shares, 2]: bits of the largest magnitude, count of zeros
)


@intrinsic
def _pointer(typing_context, address):
    """What lies at `address`, an int64."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(address), generate


@intrinsic
def _fetch_and_increment(typing_context, address):
    """The int64 at `address`, which is increased by one as seen by all threads at once."""

    def generate(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.PointerType(ir.IntType(64)))
        return builder.atomic_rmw("add", pointer, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(address), generate


@njit(nogil=True, cache=True)
def _sum_share(loop, x, y, z, results):
    """One share of a loop that returns sums."""
    if loop == SQUARE_SUM:
        results[0] = compiled.square_sum(x)
    elif loop == COPY:
        results[0] = compiled.copy_and_square_sum(x, y)
    elif loop == DISTANCE:
        results[0] = compiled.square_distance(x, y)
    elif loop == INNER:
        results[0], results[1], results[2] = compiled.inner_products(x, y)
    else:
        (
            results[0],
            results[1],
            results[2],
            results[3],
            results[4],
            results[5],
            results[6],
        ) = compiled.junction_products(x, y, z)


@njit(nogil=True, cache=True)
def _run_shares(task, floating, integer):
    """Take shares of `task` until none is left."""
    next_share, shares, loop, size, pieces, channels, run, bins = task[:8]
    at_x, at_y, at_z, at_layout, at_counts, at_sums, at_results, at_extremes = task[8:16]
    x = carray(_pointer(at_x), (size,), floating)
    while True:
        share = _fetch_and_increment(next_share)
        if share >= shares:
            return
        first = pieces * share // shares
        last = pieces * (share + 1) // shares
        if loop == REDUCE:
            bits = carray(_pointer(at_x), (size,), integer)
            layout = carray(_pointer(at_layout), (3,), integer)
            counts = carray(_pointer(at_counts), (shares, 4, bins), np.int64)
            sums = carray(_pointer(at_sums), (shares, 2, channels), np.float64)
            extremes = carray(_pointer(at_extremes), (shares, 2), np.int64)
            largest, zeros = compiled.reduce_part(
                x, bits, layout, channels, run, first, last, counts[share], sums[share]
            )
            extremes[share, 0] = largest
            extremes[share, 1] = zeros
        else:
            y = carray(_pointer(at_y), (size,), floating)
            z = carray(_pointer(at_z), (size,), floating)
            results = carray(_pointer(at_results), (shares, MAX_SUMS), np.float64)
            _sum_share(loop, x[first:last], y[first:last], z[first:last], results[share])


@cfunc(types.void(types.CPointer(types.int64)), cache=True)
def _run_float32(task):
    _run_shares(carray(task, (16,)), np.float32, np.int32)


@cfunc(types.void(types.CPointer(types.int64)), cache=True)
def _run_float64(task):
    _run_shares(carray(task, (16,)), np.float64, np.int64)


_FUNCTIONS = {np.dtype(np.float32): _run_float32, np.dtype(np.float64): _run_float64}

# torch loads its OpenMP runtime for all to see, under GNU's names, which LLVM's knows as well.
_parallel = ctypes.CDLL(None).GOMP_parallel
_parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
_parallel.restype = None


def run_task(dtype: np.dtype, threads: int, **fields: int | np.ndarray) -> None:
    """Do a task, `fields` by name, in `threads` threads; x, y and z are of `dtype`.

    A field left out is 0. An array stands for its address.
    """
    next_share = np.zeros(1, np.int64)
    given = fields | {"at_next_share": next_share, "shares": threads}
    task = np.zeros(len(FIELDS), np.int64)
    for name, value in given.items():
        task[FIELDS.index(name)] = value.ctypes.data if isinstance(value, np.ndarray) else value
    _parallel(_FUNCTIONS[dtype].address, task.ctypes.data, threads, 0)
