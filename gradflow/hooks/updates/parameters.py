"""Norms of parameters, their gradients and their updates, step by step.

Which parameters there are is looked up again in every recorded step, and in one before it whose
gradients are kept: models grow, and shrink, and layers are replaced. A parameter is what the model
has under a name: another one under that name goes on where the one before ended.

Two things are kept, each as large as the model: the previous gradients from step to step, if the
next step is recorded too and needs them for the cosine, and a copy of the weights from before the
update, while it is made; without an optimizer, from the step's beginning on. If parameters are
measured in turns, or their updates are, both are those of the turn alone.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from gradflow.errors import TracingError
from gradflow.hooks.processes.tensors import local_part
from gradflow.hooks.recording.parameter_table import Numbers, ParameterTable
from gradflow.hooks.updates.known import KnownParameters, Trained
from gradflow.hooks.updates.measures.backward_gradients import BackwardGradients, norms_of
from gradflow.hooks.updates.measures.kept_gradients import GradientMeasures
from gradflow.hooks.updates.measures.kept_weights import KeptWeights
from gradflow.hooks.updates.measures.many import Loop, norm_of
from gradflow.hooks.updates.measures.previous_gradients import PreviousGradients
from gradflow.hooks.updates.measures.room import Room, most_bytes
from gradflow.hooks.updates.turns import ALWAYS, Every, Turns

# What an optimizer's step is measured anew from.
_OF_UPDATE = ("weight_norm", "gradient_norm", "gradient_cosine", "previous_gradient_norm")


class ParameterRecorder:
    """Measures every parameter of `model` around an update.

    `pass_ended` is called when a backward pass has filled `.grad`, `begin_update` before the
    weights change, `measure_gradients` when an optimizer receives its gradients, for its parameters
    alone or for all not measured yet, `after_update` when the step has ended, and then `end_step`,
    also if the step is not recorded. Nothing is read back from a device other than the CPU.

    `is_recording` says whether what happens now belongs to a recorded step; by default it does.
    With `every.parameters`, a recorded step measures one parameter in so many: those whose turn it
    is. With `every.updates` this holds only for updates and cosines, which need copies.

    Fields:
        backward: the gradients as backward leaves them.
        gradients_were_missed: whether a backward pass of the step filled gradients of which none
            could be read.
    """

    def __init__(
        self,
        model: nn.Module,
        is_recording: Callable[[], bool] = lambda: True,
        every: Every = ALWAYS,
    ) -> None:
        self._known = KnownParameters(model)
        self._updates_every = every.updates
        self._turns = self._copied = Turns(every.parameters, self._known.all)
        if every.updates > 1:
            self._copied = Turns(every.updates, self._known.all)
        self._table = self._new_table()
        self.backward = BackwardGradients(
            lambda name: name not in self._measured and self._turns.is_now(name) and is_recording(),
            self._keep_weight_of,
        )
        self.backward.put = self._put_backward_norms
        self.backward.drop = self._drop_backward_norms
        self.gradients_were_missed = False
        count = self._copied.every
        room = self._new_room() if count > 1 else None
        self._kept = [KeptWeights(room) for _ in range(count)]
        self._previous = PreviousGradients(
            (self._new_room(), self._new_room()) if count > 1 else None
        )
        self._measured: set[str] = set()
        self._others = Loop("square_sum")
        self._without_copy = [Loop("square_sum") for _ in range(count)]

    @property
    def names(self) -> dict[str, Parameter]:
        """All parameters known, by name."""
        return self._known.all

    @property
    def in_turns(self) -> bool:
        """Whether a step measures only some of the parameters."""
        return self._turns.every > 1

    @property
    def turns_of_updates(self) -> int:
        """After how many recorded steps the update of a parameter is measured again."""
        return self._copied.every

    @property
    def updates_in_turns(self) -> bool:
        """Whether a step measures the updates of only some of the parameters."""
        return self._copied.every > 1

    @property
    def _weights(self) -> KeptWeights:
        """The weights of those whose turn it is."""
        return self._kept[self._copied.turn]

    def look_up(self) -> None:
        """Look up which parameters the model has now, in steps whose gradients are needed."""
        if self._known.look_up():
            names = self._known.all.keys()
            for kept in self._kept:
                kept.forget_all_but(names)
            self.backward.keep_only(names)
            for turns in {self._turns, self._copied}:
                turns.look_up(self._known.all)
            self._table = self._table.with_names(self._known.names, self._known.places)

    def follow_arrivals(self) -> None:
        """Have gradients that do not last read as they arrive, before a pass of a recorded step."""
        self.backward.follow_arrivals(self._known.trained())

    @torch.no_grad()
    def pass_ended(self) -> None:
        """Measure the gradients that a backward pass has left, but for those received already."""
        self.look_up()
        trained = self._known.trained()
        now = self._turns.now(trained).by_name
        left = now
        if self._measured:
            left = {name: one for name, one in now.items() if name not in self._measured}
        self.backward.pass_ended(left)
        self.gradients_were_missed = (
            bool(left)
            and not self._table.has_any("backward_gradient_norm")
            # Those whose turn it is may be out of use.
            and not (self.in_turns and any(one.grad is not None for one in trained.tensors))
        )

    @torch.no_grad()
    def begin_update(self, *, record: bool, keep_weights: bool) -> None:
        """Measure the weights if the step is recorded, and keep them if an update will follow."""
        # Those whose gradients were taken within the backward pass have had their update already.
        updated = self.backward.taken if record else set()
        self._table.forget_all_but(updated, _OF_UPDATE)
        self._measured = set()
        self._weights.names.intersection_update(
            {name for name in updated if self._table.has("weight_norm", name)}
        )
        if record:
            self.look_up()
            self.measure_weights(keep=keep_weights)

    @torch.no_grad()
    def measure_weights(self, *, keep: bool) -> None:
        """Measure the weights of the parameters that have not been measured in this step."""
        trained = self._known.trained()
        names, tensors = self._without("weight_norm", self._copied.now(trained))
        measured = self._weights.keep(names, tensors) if keep else self._weights.norms(tensors)
        self._table.put("weight_norm", names, measured)
        if self._copied is not self._turns:
            names, tensors = self._without("weight_norm", self._copied.others(trained))
            self._table.put("weight_norm", names, self._weights.norms(tensors))

    @torch.no_grad()
    def measure_gradients(
        self, names: Collection[str] | None, *, record: bool, keep_gradients: bool
    ) -> None:
        """Measure the gradients of `names`, or of all parameters, that were not in this step yet.

        `keep_gradients` keeps them for their cosine with those of the next step.
        """
        if keep_gradients and not record and not self._measured:
            # Else the update has begun with it. The gradient of a replaced layer is an older one.
            self.look_up()
        trained = self._known.trained()
        chosen: Mapping[str, Parameter] = trained.by_name
        if names is not None or self._measured:
            chosen = {
                name: one
                for name, one in trained.by_name.items()
                if name not in self._measured and (names is None or name in names)
            }
        if not self._measured:
            begun = chosen if names is None else trained.by_name
            self._previous.begin_step(begun)
            if record and names is not None:
                self._measure_for_now(begun, chosen)
        self._measured |= chosen.keys()
        if not self.updates_in_turns:
            found = self._previous.measure(chosen, compare=record, keep=keep_gradients)
        else:
            now, following = self._copied.now_and_next(chosen, record=record)
            found = self._previous.measure(now, compare=record, keep=False)
            kept = self._previous.measure(following, compare=False, keep=keep_gradients)
            if record and not self.in_turns:
                self._measure_others(chosen, now, kept)
        if record:
            self._table.put("gradient_norm", found.names, found.norms)
            self._table.put("gradient_cosine", found.names, found.cosines)
            if self._known.sharded:
                self._table.put("previous_gradient_norm", found.names, found.previous_norms)

    def let_go_of_gradients(self) -> None:
        """Keep no gradient of an earlier step: neither this step nor the next one is recorded."""
        self._previous.let_go()

    @torch.no_grad()
    def after_update(self, *, received_as_left: bool) -> ParameterTable:
        """Return the measured values by parameter and quantity, without the unknown ones.

        With `received_as_left`, nothing shows what the optimizer receives: a gradient that is gone
        now counts as received as backward left it. One that a hook has taken always does.
        """
        if self._previous.watches:
            self._previous.check_after_step(self._known.trained().by_name)
        table, self._table = self._table, self._new_table()
        taken = None if received_as_left else self.backward.taken
        table.fill("gradient_norm", "backward_gradient_norm", taken)
        self._put_distances(table)
        for turns in {self._turns, self._copied}:
            turns.advance()
        return table

    def end_step(self, *, begins_at_once: bool = True) -> None:
        """Forget what belongs to the step that has ended.

        `begins_at_once` says whether the weights are kept again before the next forward pass.
        """
        self._table = self._new_table()
        for kept in self._kept:
            kept.end_step(let_go=not begins_at_once)
        self._previous.end_step()
        self.backward.begin_step()
        self.gradients_were_missed = False
        self._measured = set()

    def state_dict(self) -> dict[str, Any]:
        """Return the gradients kept for the next step's cosine, and whose turn it is."""
        kept = {**self._previous.state_dict(), **self._copied.state_dict()}
        return {**kept, "updates_every": self._updates_every}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the kept gradients, each on the device of its parameter.

        Raises `TracingError` if updates were measured in another number of turns: the description
        of a run holds for all of it.
        """
        before = state.get("updates_every", 1)
        if before != self._updates_every:
            raise TracingError(
                f"until now this training measured updates with updates_every={before}: give the "
                f"tracer the same, not {self._updates_every}"
            )
        known = self._known.all
        gradients = {
            name: gradient.to(local_part(known[name].detach()).device)
            for name, gradient in state["gradients"].items()
            if name in known  # the model may have lost some since
        }
        self._previous.load_state_dict({**state, "gradients": gradients})
        for turns in {self._turns, self._copied}:
            turns.load_state_dict(state, known)

    @torch.no_grad()
    def _keep_weight_of(self, name: str, parameter: Tensor) -> None:
        """Measure a weight when its first gradient arrives: a hook may be about to change it."""
        if name not in self._known.all or self._table.has("weight_norm", name):
            return
        if self._copied.is_now(name):
            self._table.set("weight_norm", name, self._weights.keep_one(name, parameter))
        else:
            self._table.set("weight_norm", name, norm_of(local_part(parameter.detach())))

    def _measure_for_now(
        self, trained: Mapping[str, Parameter], chosen: Mapping[str, Parameter]
    ) -> None:
        """Take the norms of the others: their optimizer may not step, and they may be zeroed."""
        given = {
            name: one.grad
            for name, one in trained.items()
            if name not in chosen and one.grad is not None and self._turns.is_now(name)
        }
        self._table.put("gradient_norm", [*given], norms_of([*given.values()], self._others))

    def _measure_others(
        self,
        chosen: Mapping[str, Parameter],
        compared: Mapping[str, Parameter],
        kept: GradientMeasures,
    ) -> None:
        """Take the norms of those gradients of `chosen` that are not compared: some are `kept`."""
        self._table.put("gradient_norm", kept.names, kept.norms)
        known = compared.keys() | set(kept.names)
        given = {
            name: one.grad
            for name, one in chosen.items()
            if name not in known and one.grad is not None
        }
        loop = self._without_copy[self._copied.turn]
        self._table.put("gradient_norm", [*given], norms_of([*given.values()], loop))

    def _without(
        self, quantity: str, parameters: Trained
    ) -> tuple[Sequence[str], Sequence[Parameter]]:
        """Names and tensors of those parameters of which a quantity is not known in this step."""
        if not self._table.has_any(quantity):
            return parameters.names, parameters.tensors
        names = [name for name in parameters.names if not self._table.has(quantity, name)]
        return names, [parameters.by_name[name] for name in names]

    def _new_room(self) -> Room:
        def most(device: torch.device) -> int:
            each = self._copied.each(self._known.trained())
            return most_bytes((map(local_part, turn) for turn in each), device)

        return Room(most)

    def _new_table(self) -> ParameterTable:
        return ParameterTable(self._known.names, self._known.places)

    def _put_distances(self, table: ParameterTable) -> None:
        """Put how far the step has moved the weights that were kept before it."""
        names, distances = self._weights.distances(self._known.all)
        table.put("update_norm", names, distances)

    def _put_backward_norms(self, names: Sequence[str], norms: Numbers) -> None:
        if len(names) > 1 or names[0] in self._known.all:  # one that arrives may have been removed
            self._table.put("backward_gradient_norm", names, norms)

    def _drop_backward_norms(self, names: AbstractSet[str]) -> None:
        self._table.forget("backward_gradient_norm", names)
