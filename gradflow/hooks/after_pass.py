"""The end of a backward pass, after which the processes have averaged their gradients."""

from collections.abc import Callable
from functools import partial

from torch.autograd import Variable


def call_after_pass(function: Callable[[], None], rounds: int = 2) -> None:
    """Call `function` when all that others do at the end of the running backward pass is done.

    DDP and FSDP2 average gradients in calls that they queue while the pass runs, some in a call
    that an earlier one queues. The queue runs in order: this one queues itself again, behind
    these.
    """
    then = function if rounds == 0 else partial(call_after_pass, function, rounds - 1)
    Variable._execution_engine.queue_callback(then)
