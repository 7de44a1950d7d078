"""Keeps forward and backward passes that fail out of the record."""

from collections.abc import Callable
from functools import partial

import torch
from torch.autograd import Variable

from gradflow.hooks.records import StepRecord


class Savepoint:
    """The forward part of `record` as it was before the forward pass that now begins."""

    def __init__(self, record: StepRecord) -> None:
        self._record = record
        self._activations = dict(record.activations)
        self._junctions = {
            layer: (entry, dict(vars(entry))) for layer, entry in record.junctions.items()
        }

    def restore(self) -> None:
        """Remove the forward pass that began here from the record, because it failed."""
        self._record.activations.clear()
        self._record.activations.update(self._activations)
        self._record.junctions.clear()
        for layer, (entry, fields) in self._junctions.items():
            vars(entry).update(fields)
            self._record.junctions[layer] = entry


class BackwardPasses:
    """Delays function calls until the running backward pass has ended; drops them if it fails."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[Callable[[], None]]] = {}

    def call_at_end(self, function: Callable[[], None]) -> None:
        """Call `function` once the running backward pass has ended; at once if none is running."""
        task = torch._C._current_graph_task_id()
        if task == -1:
            function()
            return
        # Autograd has a thread for each device. Two threads that find the list empty may both
        # queue the callback; the second callback then finds an empty list.
        waiting = self._waiting.setdefault(task, [])
        if not waiting:
            Variable._execution_engine.queue_callback(partial(self._ended, task))
        waiting.append(function)

    def forget(self) -> None:
        """Drop the calls left over from backward passes that failed."""
        self._waiting.clear()

    def _ended(self, task: int) -> None:
        for function in self._waiting.pop(task, ()):
            function()
