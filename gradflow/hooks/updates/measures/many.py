"""Norms, products, copies and differences of many tensors in few calls.

In main memory one compiled loop goes over a table of addresses. It is laid out once, and again
when a tensor no longer looks as it did then: another class, dtype, shape or order in memory. On a
device `grouped` does it. What neither takes is read one by one: shards, sparse, complex and
quantized tensors, such with gaps in memory, and those of half precision in main memory.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.processes.tensors import local_part
from gradflow.hooks.recording.parameter_table import Numbers
from gradflow.hooks.reduction import cpu, means
from gradflow.hooks.reduction.deferred.same_looks import PLAIN, Looks
from gradflow.hooks.reduction.fused import safe_norm
from gradflow.hooks.updates.measures import grouped


@dataclass(frozen=True)
class _Table:
    """The lines for tensors of one dtype.

    Fields:
        dtype: theirs.
        places: [T] of the tensors among those given.
        owners, first, lengths: [L] of each line the place of its tensor, the bytes before its
            first element, and its number of elements.
        starts: [T] the first line of each tensor.
        shared: of the tensors with a line for each thread.
        threads: in how many threads the lines are read.
    """

    dtype: np.dtype
    places: np.ndarray
    owners: np.ndarray
    first: np.ndarray
    lengths: np.ndarray
    starts: np.ndarray
    shared: np.ndarray
    threads: int


class Seen:
    """Tensors, with how they look and where they are now.

    `before` is how such tensors looked before: it is kept if these look the same. `addresses` [n]
    are where they are, if that is known.
    """

    def __init__(
        self,
        tensors: Sequence[Tensor],
        before: Looks | None = None,
        addresses: np.ndarray | None = None,
    ) -> None:
        self.tensors = tensors
        is_same = before is not None and before.are_those_of(tensors)
        self.looks = before if before is not None and is_same else Looks(tensors)
        self._addresses = addresses

    def addresses(self) -> np.ndarray:
        """The addresses of the tensors; 0 for one that has none."""
        if self._addresses is None:
            self._addresses = _addresses(self.tensors)
        return self._addresses

    def have_moved(self) -> np.ndarray:
        """Which tensors are elsewhere than when `addresses` was first called: [n]."""
        moved: np.ndarray = self.addresses() != _addresses(self.tensors)
        return moved


class Loop:
    """A loop of `compiled` over lists of tensors that look the same in most steps.

    Fields:
        looks: how the tensors of each list looked last.
    """

    def __init__(self, name: str) -> None:
        self.looks: list[Looks] = []
        self._name = name
        self._threads = 0
        self._tables: list[_Table] = []
        self._read = np.empty(0, np.int64)
        self._rest: list[int] = []

    def __call__(self, *lists: Seen) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """Run the loop over each tensor of one list, or over the pairs of two.

        Return the sums [n, 3], the places whose sums these are, and those that were left out.
        """
        count = len(lists[0].tensors)
        sums = np.zeros((count, 3))
        module = cpu.addresses_module()
        if module is None or not count:
            return sums, np.empty(0, np.int64), list(range(count))
        threads, looks = torch.get_num_threads(), [one.looks for one in lists]
        if threads != self._threads or list(map(id, looks)) != list(map(id, self.looks)):
            self._lay_out([one.tensors for one in lists])
            self._threads, self.looks = threads, looks
        for table in self._tables:
            found = self._sums(module, table, lists)
            if len(table.places) == count:
                return found, self._read, self._rest
            sums[table.places] = found
        return sums, self._read, self._rest

    def _lay_out(self, lists: Sequence[Sequence[Tensor]]) -> None:
        kinds = [_common_dtype(one) for one in zip(*lists, strict=True)]
        self._rest = [place for place, kind in enumerate(kinds) if kind is None]
        self._read = np.array([place for place, kind in enumerate(kinds) if kind], np.int64)
        self._tables = []
        for dtype in cpu.NUMPY:
            places = [place for place, kind in enumerate(kinds) if kind is dtype]
            if places:
                self._tables.append(_laid_out(dtype, places, [lists[0][at] for at in places]))

    def _sums(self, module: Any, table: _Table, lists: Sequence[Seen]) -> np.ndarray:
        lines = np.empty((len(table.owners), module.FIELDS), np.int64)
        for column, seen in enumerate(lists):
            lines[:, column] = seen.addresses()[table.owners] + table.first
        if len(lists) == 1:
            lines[:, 1] = lines[:, 0]
        lines[:, 2] = table.lengths
        found = np.zeros((len(lines), module.SUMS))
        if table.threads > 1:
            sharing = cpu.threads_module()
            assert sharing is not None
            sharing.run_lines(self._name, table.dtype, lines, found, table.threads)
        else:
            module.run(self._name, table.dtype, lines, found)
        if len(table.starts) == len(lines):
            return found
        sums: np.ndarray = found[table.starts]
        # One after the other, as the shares of a single tensor are added up.
        for share in range(1, table.threads):
            sums[table.shared] += found[table.starts[table.shared] + share]
        return sums


def norms(loop: Loop, seen: Seen, held: Callable[[int], Tensor]) -> Numbers:
    """Return the L2 norm of each tensor.

    `loop` is one over sums of squares; `held` gives what to measure of the tensor at a place, if
    the loop leaves it out.
    """
    numbers = Numbers(len(seen.tensors))
    sums, read, rest = loop(seen)
    numbers.put_host(read, np.sqrt(sums[read, 0]))
    put_norms(numbers, rest, [held(place) for place in rest])
    return numbers


def put_norms(numbers: Numbers, places: Sequence[int], tensors: Sequence[Tensor]) -> None:
    """Set the numbers at `places` to the L2 norms of tensors that no loop over a table reads."""
    groups, alone = grouped.groups_of(tensors)
    for group in groups:
        vector = grouped.norms([tensors[index] for index in group])
        numbers.put_on_device(np.array([places[index] for index in group]), vector)
    numbers.put_each(
        [places[index] for index in alone], [norm_of(tensors[index]) for index in alone]
    )


def norm_of(x: Tensor) -> Tensor | float:
    """Return the L2 norm of a tensor: a float in main memory, else a 0-d tensor on its device."""
    square = cpu.square_sum(x)
    return safe_norm(x) if square is None else math.sqrt(square)


def are_alike(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have the same type, shape and device."""
    return (first.dtype, first.shape, first.device) == (second.dtype, second.shape, second.device)


def dense_gradient(gradient: Tensor) -> Tensor:
    """Return the part of a parameter's gradient that this process holds, as a dense tensor."""
    part = local_part(gradient.detach())
    return part.to_dense() if part.is_sparse else part


def prepare(device: torch.device) -> None:
    """Load and test what reads many tensors on `device`, so that no step waits for it."""
    if device.type == "cpu" and cpu.addresses_module() is not None:
        means.note("parameters", "one compiled loop")
    elif device.type != "meta":
        means.note("parameters", "grouped" if grouped.prepare(device) else "one by one")


def _common_dtype(tensors: Sequence[Tensor]) -> torch.dtype | None:
    """The dtype of tensors that a loop reads together, element by element; None if it does not."""
    if not all(map(_is_readable, tensors)) or not cpu.are_in_one_order(tensors):
        return None
    return tensors[0].dtype


def _is_readable(tensor: Tensor) -> bool:
    return (
        type(tensor) in PLAIN
        and tensor.dtype in cpu.NUMPY
        and tensor.is_cpu
        and tensor.layout == torch.strided
        and not tensor.is_nested
        and not tensor.is_neg()
        and tensor.numel() > 0
    )


def _laid_out(dtype: torch.dtype, places: list[int], tensors: Sequence[Tensor]) -> _Table:
    sizes = np.array([tensor.numel() for tensor in tensors], np.int64)
    threads = cpu.thread_count(int(sizes.sum()))
    shares = np.array([min(threads, cpu.thread_count(size)) for size in sizes.tolist()], np.int64)
    starts = np.cumsum(shares) - shares
    owners = np.repeat(np.arange(len(places)), shares)
    share = np.arange(len(owners)) - starts[owners]
    first = sizes[owners] * share // shares[owners]
    last = sizes[owners] * (share + 1) // shares[owners]
    return _Table(
        cpu.NUMPY[dtype],
        np.array(places, np.int64),
        np.array(places, np.int64)[owners],
        first * dtype.itemsize,
        last - first,
        starts,
        np.flatnonzero(shares > 1),
        threads,
    )


def _addresses(tensors: Sequence[Tensor]) -> np.ndarray:
    try:
        return np.fromiter(map(Tensor.data_ptr, tensors), np.int64, len(tensors))
    except RuntimeError:
        return np.array([address_of(tensor) for tensor in tensors], np.int64)


def address_of(tensor: Tensor) -> int:
    """The address of a tensor; 0 if it has none, as a sparse one."""
    try:
        return tensor.data_ptr()
    except RuntimeError:
        return 0
