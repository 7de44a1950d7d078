"""Runs a loop of `compiled` over many tensors, given by a table of their addresses.

One call reads all tensors of a model: a call for each of them would take Python some microseconds,
which is more than most of them take to read. A large tensor has several lines in the table, one for
each share of its elements, so each sum has the bits that it has if its tensor is read alone.
Import this module through `gradflow.hooks.reduction.cpu`.
"""

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, njit, types  # type: ignore[attr-defined]
from numba.extending import intrinsic

from gradflow.hooks.reduction.loops import compiled

# By name of a loop of `compiled`, its number here.
LOOPS = {"square_sum": 0, "inner_products": 1, "copy_and_square_sum": 2, "square_distance": 3}
_SQUARE_SUM, _INNER, _COPY = range(3)
# A line of the table: the addresses of x and of y, and how many elements there are.
FIELDS = 3
# How many sums a line has at most.
SUMS = 3


@intrinsic
def pointer(typing_context, address):
    """Return the pointer to `address`, an int64."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(address), generate


@intrinsic
def fetch_and_increment(typing_context, address):
    """Atomically increase the int64 at `address` by one; return its previous value."""

    def generate(context, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], ir.PointerType(ir.IntType(64)))
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(address), generate


@njit(nogil=True, cache=True)
def _run_line(loop, line, floating, sums):
    """Run the loop over the tensors of one line; write its `sums` [SUMS]."""
    x = carray(pointer(line[0]), (line[2],), floating)
    if loop == _SQUARE_SUM:
        sums[0] = compiled.square_sum(x)
        return
    y = carray(pointer(line[1]), (line[2],), floating)
    if loop == _INNER:
        sums[0], sums[1], sums[2] = compiled.inner_products(x, y)
    elif loop == _COPY:
        sums[0] = compiled.copy_and_square_sum(x, y)
    else:
        sums[0] = compiled.square_distance(x, y)


@njit(nogil=True, cache=True)
def _run_lines(loop, table, floating, sums):
    for index in range(len(table)):
        _run_line(loop, table[index], floating, sums[index])


@njit(nogil=True, cache=True)
def _run_float32(loop, table, sums):
    _run_lines(loop, table, np.float32, sums)


@njit(nogil=True, cache=True)
def _run_float64(loop, table, sums):
    _run_lines(loop, table, np.float64, sums)


@njit(nogil=True, cache=True)
def _take_lines(task, floating):
    """Take lines until none is left: fields of the task as in `task_for`."""
    at_next, lines, loop, at_table, at_sums = task[0], task[1], task[2], task[3], task[4]
    table = carray(pointer(at_table), (lines, FIELDS), np.int64)
    sums = carray(pointer(at_sums), (lines, SUMS), np.float64)
    while True:
        index = fetch_and_increment(at_next)
        if index >= lines:
            return
        _run_line(loop, table[index], floating, sums[index])


@cfunc(types.void(types.CPointer(types.int64)), cache=True)
def _take_float32(task):
    _take_lines(carray(task, (5,)), np.float32)


@cfunc(types.void(types.CPointer(types.int64)), cache=True)
def _take_float64(task):
    _take_lines(carray(task, (5,)), np.float64)


_RUN = {np.dtype(np.float32): _run_float32, np.dtype(np.float64): _run_float64}
# What each thread calls with the address of a task.
TAKE = {np.dtype(np.float32): _take_float32, np.dtype(np.float64): _take_float64}


def run(loop: str, dtype: np.dtype, table: np.ndarray, sums: np.ndarray) -> None:
    """Run a loop over `table` [lines, FIELDS] of tensors of `dtype`, in this thread.

    `sums` [lines, SUMS] gets what the loop returns for each line.
    """
    _RUN[dtype](LOOPS[loop], table, sums)


def task_for(loop: str, table: np.ndarray, sums: np.ndarray, counter: np.ndarray) -> np.ndarray:
    """Return the task for the functions in `TAKE`, of arrays that must live until it is done."""
    arrays = (counter, table, sums)
    at_next, at_table, at_sums = (one.ctypes.data for one in arrays)
    return np.array([at_next, len(table), LOOPS[loop], at_table, at_sums], np.int64)
