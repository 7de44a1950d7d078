"""Whose turn it is, if each recorded step measures only some of the parameters.

There are two kinds of turns. With `parameters_every`, everything of a parameter waits for its turn.
With `updates_every` this holds only for what needs a copy of the parameter from before: how far an
update moves it, and the cosine of its gradient with that of the step before.

In a round, as many recorded steps as there are turns, each parameter has its turn once. Their order
is another one in the next round. Else, with an optimizer that steps at every second step, half of
the parameters would have all of their turns where nothing moves.
"""

from collections.abc import Mapping
from functools import cache
from math import gcd
from typing import Any, NamedTuple

from torch.nn import Parameter

from gradflow.hooks.updates.known import Trained, is_trained


class Every(NamedTuple):
    """In how many recorded steps a parameter is measured once, and its update; one is 1."""

    parameters: int = 1
    updates: int = 1


ALWAYS = Every()


class Turns:
    """Divides trained parameters into `every` parts of about the same size; each has its turn.

    One that is trained later is given to a part once it is. Frozen ones have none: beside adapters,
    they would take most turns.

    Fields:
        every: how many recorded steps a round has, in each of which a parameter has one turn.
        number: how many recorded steps have ended.
    """

    def __init__(self, every: int, parameters: Mapping[str, Parameter]) -> None:
        self.every = every
        self.number = 0
        self._part: dict[str, int] = {}
        self._bytes: dict[str, int] = {}
        self._sizes = [0] * every
        self._of: Trained | None = None
        self._chosen: dict[int, tuple[Trained, Trained]] = {}
        self.look_up(parameters)

    def look_up(self, parameters: Mapping[str, Parameter]) -> None:
        """Take note of the model's parameters now."""
        self._of, self._chosen = None, {}
        if self.every == 1:
            return
        for name in self._part.keys() - parameters.keys():
            self._sizes[self._part.pop(name)] -= self._bytes.pop(name)
        self._include({name: one for name, one in parameters.items() if is_trained(one)})

    def _include(self, trained: Mapping[str, Parameter]) -> None:
        """Give each new parameter, the largest first, to the part that is smallest by then."""
        new = {name: _size(one) for name, one in trained.items() if name not in self._part}
        for name in sorted(new, key=lambda name: -new[name]):
            self._give(name, new[name], min(range(self.every), key=self._sizes.__getitem__))

    @property
    def turn(self) -> int:
        """Which part has its turn in the step under way, if that is recorded."""
        return turn_at(self.number, self.every)

    def is_now(self, name: str) -> bool:
        """Whether it is a parameter's turn in the step under way, if that is recorded."""
        return self.every == 1 or self._part.get(name) == self.turn

    def now(self, trained: Trained) -> Trained:
        """Those of the trained parameters whose turn it is."""
        return trained if self.every == 1 else self._now_and_others(trained)[0]

    def others(self, trained: Trained) -> Trained:
        """Those of the trained parameters whose turn it is not."""
        return _NONE if self.every == 1 else self._now_and_others(trained)[1]

    def now_and_next(
        self, parameters: Mapping[str, Parameter], *, record: bool
    ) -> tuple[dict[str, Parameter], dict[str, Parameter]]:
        """Those whose turn it is in this step, if it is recorded, and in the next recorded one.

        All are trained.
        """
        self._include(parameters)
        following = turn_at(self.number + record, self.every)
        return (
            {name: one for name, one in parameters.items() if record and self.is_now(name)},
            {name: one for name, one in parameters.items() if self._part[name] == following},
        )

    def each(self, trained: Trained) -> list[list[Parameter]]:
        """The trained parameters of each turn."""
        if self.every > 1:
            self._include(trained.by_name)
        found: list[list[Parameter]] = [[] for _ in range(self.every)]
        for name, one in trained.by_name.items():
            found[self._part[name] if self.every > 1 else 0].append(one)
        return found

    def advance(self) -> None:
        """A recorded step has ended."""
        self.number += 1

    def state_dict(self) -> dict[str, Any]:
        """Return whose turn it is, and which part each parameter belongs to."""
        return {"turn": self.number, "every": self.every, "parts": dict(self._part)}

    def load_state_dict(
        self, state: Mapping[str, Any], parameters: Mapping[str, Parameter]
    ) -> None:
        """Restore what `state_dict` returned; parts only if there are as many of them now."""
        self.number = state.get("turn", 0)
        if state.get("every") == self.every > 1:
            self._part, self._bytes, self._sizes = {}, {}, [0] * self.every
            for name, part in state["parts"].items():
                if name in parameters and part in range(self.every):
                    self._give(name, _size(parameters[name]), part)
            self.look_up(parameters)

    def _give(self, name: str, size: int, part: int) -> None:
        # An empty one counts too, so that many small ones do not all get the same turn.
        self._part[name], self._bytes[name] = part, 1 + size
        self._sizes[part] += 1 + size

    def _now_and_others(self, trained: Trained) -> tuple[Trained, Trained]:
        if self._of is not trained:
            self._include(trained.by_name)
            self._of, self._chosen = trained, {}
        turn = self.turn
        if turn not in self._chosen:
            own = {n: one for n, one in trained.by_name.items() if self._part[n] == turn}
            rest = {n: one for n, one in trained.by_name.items() if n not in own}
            self._chosen[turn] = Trained(own), Trained(rest)
        return self._chosen[turn]


def turn_at(number: int, every: int) -> int:
    """Which of `every` parts has its turn in the recorded step `number`, counted from 0.

    The parts go round in order, and each round begins some further on than the one before, so that
    in `every` rounds a part has each place in the round once. What is added after so many rounds is
    drawn from their number. Without it, the turns of a part could all lie in steps that a rhythm of
    the training leaves out, such as every sixteenth step with eight turns.
    """
    rounds, place = divmod(number, every)
    return (place + rounds * _stride(every) + _drawn(rounds // every)) % every


@cache
def _stride(every: int) -> int:
    """A number without common factor with `every`, close to the golden section of it."""
    coprime = (one for one in range(1, every + 1) if gcd(one, every) == 1)
    return min(coprime, key=lambda one: abs(one - 0.382 * every))


def _drawn(seed: int) -> int:
    """A number of 32 bits that depends on `seed` without a pattern; 0 for 0 (Wellons 2018)."""
    seed = (seed ^ seed >> 16) * 0x7FEB352D & 0xFFFFFFFF
    seed = (seed ^ seed >> 15) * 0x846CA68B & 0xFFFFFFFF
    return seed ^ seed >> 16


_NONE = Trained({})


def _size(parameter: Parameter) -> int:
    """Bytes of a parameter, of all processes that have a part of it."""
    return parameter.numel() * parameter.element_size()
