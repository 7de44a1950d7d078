"""Recorded steps run uncompiled, since torch runs no hooks in compiled code; others run as usual.

`torch.compiler.set_stance("force_eager")` makes whatever was compiled, and however, run its Python
code. It holds for the whole process and needs no compiling anew, before or after. Several tracers
share it: it is put back once none of them records.

A CUDA graph that the user captures runs no Python either, and cannot be made to. What is captured
is not recorded, unless the statistics are operations of the graph (`observation.in_graph`).
"""

import weakref
from typing import Any

import torch

_recording: set[object] = set()
_set_by_us: list[Any] = []


class UncompiledSteps:
    """Sets the stance of the compiler for recorded steps, and puts back that of the user.

    If a tracer is never left, as in a notebook after an error, the stance is put back once nothing
    refers to the tracer any more.
    """

    def __init__(self) -> None:
        self._token = object()
        weakref.finalize(self, _end, self._token)

    def begin(self) -> None:
        """Run what is compiled uncompiled from here on; call it as a recorded step begins."""
        _recording.add(self._token)
        if _in_force() is None:
            _set_by_us.append(torch.compiler.set_stance("force_eager"))

    def end(self) -> None:
        """Put back the user's stance; call it as a step begins that is not recorded.

        A stance that the user has set within the step is left. When the user takes it back, what
        comes back is ours, and the next call of this function puts back the one before.
        """
        _end(self._token)


def is_capturing() -> bool:
    """Whether what runs now is captured in a CUDA graph, and computed when that is replayed."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def _end(token: object) -> None:
    _recording.discard(token)
    while not _recording and (ours := _in_force()) is not None:
        ours.__exit__(None, None, None)
        _set_by_us.remove(ours)


def _in_force() -> Any:
    """The stance in force if it is one that we have set, else None."""
    if not _set_by_us:
        return None
    # torch offers no function that tells the stance.
    in_force = torch._dynamo.eval_frame._stance
    return next((one for one in _set_by_us if one.stance is in_force), None)


class HooksInGraph:
    """While it is in force, the compiler tells modules with hooks from equal ones without.

    By default it does not look, and runs for the one what it has compiled for the other. What was
    compiled before knows nothing of it, so the compiler's cache is cleared as it begins and ends.
    """

    def __init__(self) -> None:
        config: Any = torch._dynamo.config
        self._before = config.skip_nnmodule_hook_guards
        config.skip_nnmodule_hook_guards = False
        torch._dynamo.reset()

    def end(self) -> None:
        """Put back what was before."""
        config: Any = torch._dynamo.config
        config.skip_nnmodule_hook_guards = self._before
        torch._dynamo.reset()
