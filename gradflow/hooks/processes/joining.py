"""Joins the records of several processes that train one model into those of the whole batch.

Each process observes its share of the batch, and its part of split layers and parameters. When the
numbers are copied from the device, the processes exchange them through `torch.distributed`, and the
process of rank 0 writes the run. DDP and FSDP2 average the gradients of the processes, so the loss
is the mean of their losses: each process's layer gradients are divided by the number of shares of
the batch. If these are of equal size, the result is that of a single process.

A transfer takes two collectives, whatever the number of steps, layers and parameters: one tells
whether all have recorded the same, the other exchanges all numbers, a row for each record.
"""

import hashlib
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gradflow.hooks.processes.places import place_of_this_process, split_parameters
from gradflow.hooks.processes.rows import LeftOut, OwnRow
from gradflow.hooks.recording.records import StepRecord

# How many numbers are received at once: a gigabyte. More records than that take another collective.
_LARGEST_EXCHANGE = 1 << 27


class Processes:
    """The processes that train a model together: a single one, or a process group.

    Fields:
        report: called with a kind and a sentence, if something cannot be recorded; the same in all
            processes.

    Raises `TracingError` for a model whose processes cannot be told; see `places`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.place = place_of_this_process(model)
        self.report: Callable[[str, str], None] = lambda kind, message: None
        self._counts = split_parameters(model, self.place)

    @property
    def count(self) -> int:
        """How many processes there are."""
        return self.place.count

    @property
    def is_writer(self) -> bool:
        """Whether this process writes the run."""
        return self.place.rank == 0

    @property
    def loss_share(self) -> float:
        """The factor of this process's loss in that of the whole batch."""
        return 1 / self.place.data_count

    def agree(self, number: int) -> int:
        """Return the number that the process of rank 0 gives; all must call this."""
        if self.count == 1:
            return number
        told = torch.tensor([number], dtype=torch.int64, device=self.place.device)
        group = self.place.group
        first = 0 if group is None else dist.get_global_rank(group, 0)
        dist.broadcast(told, first, group)
        return int(told)

    @torch.no_grad()
    def join(self, records: list[StepRecord]) -> list[StepRecord]:
        """Return the records of the whole batch, the same in every process; all must call this.

        None are left if the processes observed different layers or steps.
        """
        if self.count == 1 or not records:
            return records
        own = [OwnRow(record, self._counts, self.loss_share) for record in records]
        rows = [one.numbers(self.place.device) for one in own]
        longest = self._longest_if_agreed(own, rows)
        if longest is None:
            self.report("processes differ", _different_message(self.count, records[-1].step))
            return []
        left_out = LeftOut()
        for one, everyone in zip(own, self._exchange(rows, longest), strict=True):
            left_out.join(one.join(everyone, self.place.data_count))
        if left_out.unknown:
            self.report("unknown parts", _unknown_message(list(left_out.unknown)))
        if left_out.differing:
            self.report("differing copies", _differing_message(list(left_out.differing)))
        return records

    def _longest_if_agreed(self, own: list[OwnRow], rows: list[Tensor]) -> int | None:
        """Return the length of the longest row of any process.

        None unless all processes have the same steps, layers and parameters.
        """
        digest = hashlib.sha256(repr([one.names() for one in own]).encode()).digest()
        mine = int.from_bytes(digest[:7], "big")
        longest = max(len(row) for row in rows)
        told = torch.tensor([mine, -mine, longest], device=self.place.device)
        dist.all_reduce(told, dist.ReduceOp.MAX, self.place.group)
        greatest, least, longest = told.tolist()
        return longest if greatest == -least else None

    def _exchange(self, rows: list[Tensor], length: int) -> Iterator[Tensor]:
        """Yield for each row those of all processes, in main memory: [count, length]."""
        at_once = max(1, _LARGEST_EXCHANGE // (length * self.count))
        place = rows[0].new_tensor([self.place.data, self.place.model])
        for first in range(0, len(rows), at_once):
            chosen = rows[first : first + at_once]
            mine = rows[0].new_zeros(len(chosen), 2 + length)
            for whole, row in zip(mine, chosen, strict=True):
                whole[:2] = place
                whole[2 : 2 + len(row)] = row
            everyone = [torch.empty_like(mine) for _ in range(self.count)]
            dist.all_gather(everyone, mine, self.place.group)
            yield from torch.stack(everyone).cpu().unbind(1)


def _different_message(processes: int, step: int) -> str:
    return (
        f"the {processes} processes observed different layers or steps up to step {step}, which "
        "cannot be joined: the model must run the same layers, and record the same steps, in all "
        "of them"
    )


def _differing_message(names: list[str]) -> str:
    return (
        f"{_named(names)} of some steps are left out: the processes should have the same, and have "
        "not; give those that share the work on the layers the same random state, and add up the "
        "gradients of parameters that work on a part of a layer"
    )


def _named(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _unknown_message(layers: list[str]) -> str:
    return (
        f"tensors of {_named(layers)} are left out: the model is split over processes, and nothing "
        "tells which part of these each has; a DTensor does, and so does its local tensor as long "
        "as only operations by element follow"
    )
