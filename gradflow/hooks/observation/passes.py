"""Which forward and backward passes belong to a step: not those that fail, nor inner ones."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.autograd import Variable
from torch.nn.parameter import is_lazy

from gradflow.hooks.after_pass import call_after_pass
from gradflow.hooks.recording.records import StepRecord

_current_task = torch._C._current_graph_task_id
# No pass has this number; -1 says that none is running.
_NONE = -2


class Savepoint:
    """The forward part of `record` as it was before the forward pass that now begins."""

    def __init__(self, record: StepRecord) -> None:
        self._record = record
        self._activations = dict(record.activations)
        self._junctions = {
            layer: (entry, entry.skip, entry.branch) for layer, entry in record.junctions.items()
        }

    def restore(self) -> None:
        """Remove the forward pass that began here from the record, because it failed."""
        self._record.activations.clear()
        self._record.activations.update(self._activations)
        self._record.settle(only_first=True)
        self._record.junctions.clear()
        for layer, (entry, skip, branch) in self._junctions.items():
            # A backward pass of another forward pass may have added to its products meanwhile.
            entry.skip, entry.branch = skip, branch
            self._record.junctions[layer] = entry


class _AtOnce(list[Any]):
    """Settles what is put into it at once, for gradients that arrive while no pass is running."""

    def __init__(self, passes: "BackwardPasses") -> None:
        super().__init__()
        self._passes = passes

    def append(self, output: Any) -> None:
        """Settle `output`."""
        self._passes.before_end()
        output.settle()


class BackwardPasses:
    """Tells which backward passes belong to a step, and delays calls until they have ended.

    A pass belongs to the step if it fills the `.grad` of a parameter, as `loss.backward()` does. A
    pass of `torch.autograd.grad` within the loss (a gradient penalty, a differential equation, an
    inner loop) does not: what it contributes flows back in the pass that follows.

    Args:
        model: the model whose parameters are meant.
        every_pass: all passes belong to the step, for loops that never fill `.grad`.

    Fields:
        counted, left_out: how many passes belonged to a step and how many did not, of those that
            reached an observed layer of a recorded step.
        on_filling: called once within each of these passes that fills `.grad`; what it returns is
            called when the pass has ended.
        before_end: called when a pass has ended, before the calls that wait for that.
        running: the pass that runs, as far as it is known, and the outputs whose gradients have
            arrived; None if it does not belong to the step.
        unseen: whether passes that run now are the tracer's own, which nobody is to notice.
    """

    def __init__(self, model: nn.Module, *, every_pass: bool) -> None:
        self.counted = 0
        self.left_out = 0
        self.unseen = False
        self.before_end: Callable[[], None] = lambda: None
        self.on_filling: Callable[[], Callable[[], None] | None] | None = None
        self._model = model
        self._every_pass = every_pass
        self._accumulators: list[Any] = []
        self._belongs: dict[int, bool] = {}
        self.running: tuple[int, list[Any] | None] = (_NONE, None)
        self._arrived: dict[int, list[Any]] = {}
        self._at_once = _AtOnce(self)
        self._waiting: dict[int, list[tuple[Callable[..., None], tuple[Any, ...]]]] = {}

    def belongs_to_step(self) -> bool:
        """Whether the backward pass now running belongs to the step; True if none is running."""
        task = _current_task()
        if task == -1:
            return True
        known = self._belongs.get(task)
        return self._find_out(task) if known is None else known

    def gradients(self) -> list[Any] | None:
        """Return where to put an output whose gradient has arrived; it is settled at the end.

        None if the backward pass now running does not belong to the step.
        """
        task = _current_task()
        running, arrived = self.running
        if running == task:
            return arrived
        if task == -1:
            return self._at_once
        arrived = None
        if self.belongs_to_step():
            arrived = self._arrived.get(task)
            if arrived is None:
                # As in `call_at_end`, two threads may both come here.
                arrived = self._arrived.setdefault(task, [])
                self.call_at_end(self._settle, arrived)
        self.running = (task, arrived)
        return arrived

    def _settle(self, arrived: list[Any]) -> None:
        """Settle the outputs in `arrived`, each of which may have come twice."""
        outputs = arrived.copy()
        arrived.clear()
        for one in outputs:
            one.settle()

    def _find_out(self, task: int) -> bool:
        """Find out whether the pass `task`, which has just been noticed, belongs to the step."""
        if self.unseen:
            self._belongs[task] = False
            return False
        fills = self._fills_gradients()
        self._belongs[task] = found = self._every_pass or fills
        self.counted += found
        self.left_out += not found
        then = self.on_filling() if fills and self.on_filling is not None else None
        if then is not None:
            call_after_pass(then)
        return found

    def summary(self) -> dict[str, int]:
        """Return the entry of `run.json` on backward passes."""
        return {"recorded": self.counted, "left_out": self.left_out}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on counting from what `summary` returned."""
        self.counted, self.left_out = state.get("recorded", 0), state.get("left_out", 0)

    @property
    def were_all_left_out(self) -> bool:
        """Whether passes ran back through the model, and none of them was recorded."""
        return self.left_out > 0 and self.counted == 0

    def call_at_end(self, function: Callable[..., None], *args: Any) -> None:
        """Call `function` once the running backward pass has ended; at once if none is running."""
        task = torch._C._current_graph_task_id()
        if task == -1:
            self.before_end()
            function(*args)
            return
        # Autograd has a thread for each device. Two threads that find the list empty may both
        # queue the callback; the second callback then finds an empty list.
        waiting = self._waiting.get(task)
        if waiting is None:
            waiting = self._waiting.setdefault(task, [])
        if not waiting:
            Variable._execution_engine.queue_callback(partial(self._ended, task))
        waiting.append((function, args))

    def forget(self) -> None:
        """Drop the calls left over from backward passes that failed."""
        self._waiting.clear()
        self._belongs.clear()
        self._arrived.clear()
        self.running = (_NONE, None)

    def let_go_of_nodes(self) -> None:
        """Keep no node that fills gradients until they are looked up again."""
        self._accumulators.clear()

    def _fills_gradients(self) -> bool:
        if any(map(_will_run, self._accumulators)):
            return True
        # None of those known: parameters may have been moved, thawed or added since.
        self._accumulators = [
            _accumulator(parameter)
            for parameter in self._model.parameters()
            if _has_accumulator(parameter)
        ]
        # Without parameters to train, what is asked for are gradients of inputs.
        return not self._accumulators or any(map(_will_run, self._accumulators))

    def _ended(self, task: int) -> None:
        self.before_end()
        self._arrived.pop(task, None)
        if self.running[0] == task:
            self.running = (_NONE, None)
        for function, args in self._waiting.pop(task, ()):
            function(*args)


def _accumulator(parameter: torch.Tensor) -> Any:
    """The node of autograd that adds to `parameter.grad`."""
    with torch.enable_grad():
        view = parameter.expand_as(parameter)
    assert view.grad_fn is not None
    return view.grad_fn.next_functions[0][0]


def _has_accumulator(parameter: torch.Tensor) -> bool:
    # Not one made in inference mode, nor that of a lazy module that has not run.
    return parameter.requires_grad and not is_lazy(parameter) and not parameter.is_inference()


def _will_run(accumulator: Any) -> bool:
    try:
        return bool(torch._C._will_engine_execute_node(accumulator))
    except RuntimeError:
        # `torch.autograd.grad` with respect to this parameter: it returns its gradient.
        return False
