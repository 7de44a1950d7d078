"""Forward and backward passes that fail leave nothing behind in what is recorded."""

from collections.abc import Callable
from functools import partial

import torch
from torch.autograd import Variable

from gradflow.hooks.records import StepRecord


class Savepoint:
    """What `record` held of forward passes before the one that now begins."""

    def __init__(self, record: StepRecord) -> None:
        self._record = record
        self._activations = dict(record.activations)
        self._junctions = {
            layer: (entry, dict(vars(entry))) for layer, entry in record.junctions.items()
        }

    def restore(self) -> None:
        """Take the pass that began here out of the record: it broke off."""
        self._record.activations.clear()
        self._record.activations.update(self._activations)
        self._record.junctions.clear()
        for layer, (entry, fields) in self._junctions.items():
            vars(entry).update(fields)
            self._record.junctions[layer] = entry


class BackwardPasses:
    """Holds what a backward pass delivers until it has ended; one that broke off delivers none."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[Callable[[], None]]] = {}

    def call_at_end(self, function: Callable[[], None]) -> None:
        """Call `function` once the backward pass now running has ended."""
        task = torch._C._current_graph_task_id()
        if task == -1:
            function()
            return
        # Each device has a thread of its own: two that find the list empty may both ask to be
        # called, and the second call finds nothing left.
        waiting = self._waiting.setdefault(task, [])
        if not waiting:
            Variable._execution_engine.queue_callback(partial(self._ended, task))
        waiting.append(function)

    def forget(self) -> None:
        """Drop what passes that broke off had delivered."""
        self._waiting.clear()

    def _ended(self, task: int) -> None:
        for function in self._waiting.pop(task, ()):
            function()
