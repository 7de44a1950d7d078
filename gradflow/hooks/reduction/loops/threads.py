"""Runs the loops of `compiled` in the threads of torch's own OpenMP runtime.

torch's OpenMP threads keep spinning for a while after their work, so threads of another pool would
find no free core. A task therefore goes to the same OpenMP runtime: its entry point `GOMP_parallel`
calls one compiled function in every thread of the calling thread's team. Import this module through
`gradflow.hooks.reduction.cpu`, which uses one thread if numba or the runtime is missing.

A task is divided into shares that depend only on the number of threads. Any thread may take any
share, but each share writes its result to its own entry. So a sum has the same bits whenever it is
repeated with the same number of threads.
"""

import ctypes

import numpy as np
from numba import carray, cfunc, njit, types  # type: ignore[attr-defined]

from gradflow.hooks.reduction.loops import addresses, compiled
from gradflow.hooks.reduction.loops.addresses import fetch_and_increment, pointer

# How many sums each loop returns, by name of the loop.
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
    "loop",  # index in LOOPS
    "size",  # elements of x, y and z
    "pieces",  # the number of elements, or of runs or rows of `compiled.reduce_part`, to share
    "channels",
    "run",
    "bins",
    "at_x",  # [size]
    "at_y",
    "at_z",
    "at_layout",  # [3], see `compiled`
    "at_counts",  # [shares, 4, bins]
    "at_sums",  # [shares, 2 channels + 2], see `compiled`
    "at_results",  # [shares, MAX_SUMS]
    "at_extremes",  # [shares, 2]: bits of the largest magnitude, count of zeros
)
_AT_X = FIELDS.index("at_x")


@njit(nogil=True, cache=True)
def _sum_share(loop, x, y, z, results):
    """Run one share of a loop that returns sums."""
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
    x = carray(pointer(at_x), (size,), floating)
    while True:
        share = fetch_and_increment(next_share)
        if share >= shares:
            return
        first = pieces * share // shares
        last = pieces * (share + 1) // shares
        if loop == REDUCE:
            bits = carray(pointer(at_x), (size,), integer)
            layout = carray(pointer(at_layout), (3,), integer)
            counts = carray(pointer(at_counts), (shares, 4, bins), np.int64)
            sums = carray(pointer(at_sums), (shares, 2 * channels + 2), np.float64)
            extremes = carray(pointer(at_extremes), (shares, 2), np.int64)
            largest, zeros = compiled.reduce_part(
                x, bits, layout, channels, run, first, last, counts[share], sums[share]
            )
            extremes[share, 0] = largest
            extremes[share, 1] = zeros
        else:
            y = carray(pointer(at_y), (size,), floating)
            z = carray(pointer(at_z), (size,), floating)
            results = carray(pointer(at_results), (shares, MAX_SUMS), np.float64)
            _sum_share(loop, x[first:last], y[first:last], z[first:last], results[share])


@cfunc(types.void(types.CPointer(types.int64)), cache=True)
def _run_float32(task):
    _run_shares(carray(task, (16,)), np.float32, np.int32)


@cfunc(types.void(types.CPointer(types.int64)), cache=True)
def _run_float64(task):
    _run_shares(carray(task, (16,)), np.float64, np.int64)


@njit(nogil=True, cache=True)
def _complete(task, result, floating, integer):
    """Add up what the shares of a reduction have found, and complete it; see `complete`."""
    shares, size, channels, run = task[1], task[3], task[5], task[6]
    x = carray(pointer(task[8]), (size,), floating)
    bits = carray(pointer(task[8]), (size,), integer)
    layout = carray(pointer(task[11]), (3,), integer)
    sums = carray(pointer(task[13]), (shares, 2 * channels + 2), np.float64)
    extremes = carray(pointer(task[15]), (shares, 2), np.int64)
    zeros = extremes[0, 1]
    for share in range(1, shares):
        # One after the other, as numpy adds up the rows of an array.
        for i in range(2 * channels + 2):
            sums[0, i] += sums[share, i]
        extremes[0, 0] = max(extremes[0, 0], extremes[share, 0])
        zeros += extremes[share, 1]
    largest = bits.dtype.type(extremes[0, 0])
    compiled.complete(x, bits, layout, channels, run, sums[0], largest, zeros, result)
    sums[:] = 0.0


@njit(nogil=True, cache=True)
def _complete_float32(task, result):
    _complete(task, result, np.float32, np.int32)


@njit(nogil=True, cache=True)
def _complete_float64(task, result):
    _complete(task, result, np.float64, np.int64)


_FUNCTIONS = {np.dtype(np.float32): _run_float32, np.dtype(np.float64): _run_float64}
_COMPLETE = {np.dtype(np.float32): _complete_float32, np.dtype(np.float64): _complete_float64}

# torch loads its OpenMP runtime into the process; LLVM's runtime has this GNU name too.
_parallel = ctypes.CDLL(None).GOMP_parallel
_parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
_parallel.restype = None


class PreparedTask:
    """A task that is run again and again, for tensors of the dtype `dtype` at other addresses.

    It is given by its fields; those left out are 0, and an array is passed as its address. One
    thread at a time may run it.
    """

    __slots__ = ("_arrays", "_at_task", "_function", "_next_share", "_threads", "fields")

    def __init__(self, dtype: np.dtype, threads: int, **fields: int | np.ndarray) -> None:
        self._next_share = np.zeros(1, np.int64)
        given = fields | {"at_next_share": self._next_share, "shares": threads}
        self.fields = np.zeros(len(FIELDS), np.int64)
        for name, value in given.items():
            number = value.ctypes.data if isinstance(value, np.ndarray) else value
            self.fields[FIELDS.index(name)] = number
        self._arrays = tuple(given.values())  # which must live as long as the task
        self._at_task = self.fields.ctypes.data
        self._function = _FUNCTIONS[dtype].address
        self._threads = threads

    def run(self) -> None:
        """Run it in all of its threads."""
        self._next_share[0] = 0
        _parallel(self._function, self._at_task, self._threads, 0)


class Reduction:
    """Reduces tensors of one dtype and geometry in several threads, as `cpu.reduce` does one.

    `layout` is that of `compiled`, for the dtype.
    """

    __slots__ = ("_complete", "_size", "_task")

    def __init__(
        self,
        dtype: np.dtype,
        threads: int,
        layout: np.ndarray,
        size: int,
        channels: int,
        run: int,
        pieces: int,
    ) -> None:
        self._size = 3 * channels + 6
        self._complete = _COMPLETE[dtype]
        self._task = PreparedTask(
            dtype,
            threads,
            loop=REDUCE,
            size=size,
            pieces=pieces,
            channels=channels,
            run=run,
            at_layout=layout,
            at_counts=np.zeros(1, np.int64),  # no exponents are counted
            at_sums=np.zeros((threads, 2 * channels + 2)),
            at_extremes=np.zeros((threads, 2), np.int64),
        )

    def __call__(self, address: int) -> np.ndarray:
        """Return the values [3 C + 6] of the `Moments` of the tensor at an address."""
        task, values = self._task, np.empty(self._size)
        task.fields[_AT_X] = address
        task.run()
        self._complete(task.fields, values)
        return values


class Products:
    """Computes `compiled.junction_products` of tensors of one dtype and size in several threads."""

    __slots__ = ("_results", "_task")

    def __init__(self, dtype: np.dtype, threads: int, size: int) -> None:
        self._results = np.zeros((threads, MAX_SUMS))
        self._task = PreparedTask(
            dtype, threads, loop=JUNCTION, size=size, pieces=size, at_results=self._results
        )

    def __call__(self, addresses: tuple[int, int, int]) -> np.ndarray:
        """Return the products [7] of the gradients w, s and b at these addresses."""
        self._task.fields[_AT_X : _AT_X + 3] = addresses
        self._task.run()
        products: np.ndarray = self._results.sum(0)
        return products


def run_task(dtype: np.dtype, threads: int, **fields: int | np.ndarray) -> None:
    """Run a task once; see `PreparedTask`."""
    PreparedTask(dtype, threads, **fields).run()


def run_lines(
    loop: str, dtype: np.dtype, table: np.ndarray, sums: np.ndarray, threads: int
) -> None:
    """Run `addresses.run` in `threads` threads; each takes lines until none is left."""
    counter = np.zeros(1, np.int64)
    task = addresses.task_for(loop, table, sums, counter)
    _parallel(addresses.TAKE[dtype].address, task.ctypes.data, threads, 0)
