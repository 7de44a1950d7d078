"""Recorded steps run uncompiled, since torch runs no hooks in compiled code; others run as usual.

`torch.compiler.set_stance("force_eager")` makes whatever was compiled, and however, run its Python
code. It holds for the whole process and needs no compiling anew, before or after.
"""

from typing import Any

import torch


class UncompiledSteps:
    """Sets the stance of the compiler for recorded steps, and puts back that of the user."""

    def __init__(self) -> None:
        self._set_by_us: list[Any] = []

    def begin(self) -> None:
        """Run what is compiled uncompiled from here on; call it as a recorded step begins."""
        if self._current() is None:
            self._set_by_us.append(torch.compiler.set_stance("force_eager"))

    def end(self) -> None:
        """Put back the user's stance; call it as a step begins that is not recorded.

        A stance that the user has set within the step is left. When the user takes it back, what
        comes back is ours, and the next call of this function puts back the one before.
        """
        while (ours := self._current()) is not None:
            ours.__exit__(None, None, None)
            self._set_by_us.remove(ours)

    def _current(self) -> Any:
        """The stance in force if it is one that we have set, else None."""
        # torch offers no function that tells the stance.
        in_force = torch._dynamo.eval_frame._stance
        return next((one for one in self._set_by_us if one.stance is in_force), None)
