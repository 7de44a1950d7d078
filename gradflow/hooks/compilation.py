"""Recorded steps run uncompiled, since torch runs no hooks in compiled code; others run as usual.

`torch.compiler.set_stance("force_eager")` makes whatever was compiled, and however, run its Python
code. It holds for the whole process and needs no compiling anew, before or after.
"""

import weakref
from typing import Any

import torch


class UncompiledSteps:
    """Sets the stance of the compiler for recorded steps, and puts back that of the user.

    If a tracer is never left, as in a notebook after an error, the stance is put back once nothing
    refers to the tracer any more.
    """

    def __init__(self) -> None:
        self._set_by_us: list[Any] = []
        weakref.finalize(self, _put_back, self._set_by_us)

    def begin(self) -> None:
        """Run what is compiled uncompiled from here on; call it as a recorded step begins."""
        if _in_force(self._set_by_us) is None:
            self._set_by_us.append(torch.compiler.set_stance("force_eager"))

    def end(self) -> None:
        """Put back the user's stance; call it as a step begins that is not recorded.

        A stance that the user has set within the step is left. When the user takes it back, what
        comes back is ours, and the next call of this function puts back the one before.
        """
        _put_back(self._set_by_us)


def _put_back(set_by_us: list[Any]) -> None:
    while (ours := _in_force(set_by_us)) is not None:
        ours.__exit__(None, None, None)
        set_by_us.remove(ours)


def _in_force(set_by_us: list[Any]) -> Any:
    """The stance in force if it is one of `set_by_us`, else None."""
    if not set_by_us:
        return None
    # torch offers no function that tells the stance.
    in_force = torch._dynamo.eval_frame._stance
    return next((one for one in set_by_us if one.stance is in_force), None)
