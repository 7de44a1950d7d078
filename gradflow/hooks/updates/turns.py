"""Whose turn it is, if each recorded step measures only some of the parameters."""

from collections.abc import Mapping

from torch.nn import Parameter
from torch.nn.parameter import is_lazy

from gradflow.hooks.updates.known import Trained


class Turns:
    """Divides parameters into `every` parts of about the same size; each has its turn.

    Fields:
        every: after how many recorded steps a parameter has its turn again.
        number: how many recorded steps have ended.
    """

    def __init__(self, every: int, parameters: Mapping[str, Parameter]) -> None:
        self.every = every
        self.number = 0
        self._part: dict[str, int] = {}
        self._sizes = [0] * every
        self._last: tuple[Trained, int, Trained] | None = None
        self.look_up(parameters)

    def look_up(self, parameters: Mapping[str, Parameter]) -> None:
        """Give each new parameter, the largest first, to the part that is smallest by then."""
        self._last = None
        if self.every == 1:
            return
        new = {name: _size(one) for name, one in parameters.items() if name not in self._part}
        for name in sorted(new, key=lambda name: -new[name]):
            part = min(range(self.every), key=self._sizes.__getitem__)
            self._part[name] = part
            # An empty one counts too, so that many small ones do not all get the same turn.
            self._sizes[part] += 1 + new[name]

    def is_now(self, name: str) -> bool:
        """Whether it is a parameter's turn in the step under way, if that is recorded."""
        return self.every == 1 or self._part[name] == self.number % self.every

    def now(self, trained: Trained) -> Trained:
        """Those of the trained parameters whose turn it is."""
        if self.every == 1:
            return trained
        turn = self.number % self.every
        if self._last is None or self._last[0] is not trained or self._last[1] != turn:
            chosen = {n: one for n, one in trained.by_name.items() if self._part[n] == turn}
            self._last = trained, turn, Trained(chosen)
        return self._last[2]

    def now_and_next(
        self, parameters: Mapping[str, Parameter], *, record: bool
    ) -> tuple[dict[str, Parameter], dict[str, Parameter]]:
        """Those whose turn it is in this step, if it is recorded, and in the next recorded one."""
        following = (self.number + record) % self.every
        return (
            {name: one for name, one in parameters.items() if record and self.is_now(name)},
            {name: one for name, one in parameters.items() if self._part[name] == following},
        )

    def advance(self) -> None:
        """A recorded step has ended."""
        self.number += 1


def _size(parameter: Parameter) -> int:
    return 0 if is_lazy(parameter) else parameter.numel()
