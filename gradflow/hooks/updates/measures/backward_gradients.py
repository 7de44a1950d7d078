"""The norms of the parameters' gradients as backward left them, before anything changes them.

They are read once a backward pass has ended, all together. That a pass runs shows at the first
gradient that arrives, whether or not it reaches an observed layer. A parameter that lets go of its
gradient within the pass, because a hook on it makes the update, has its gradient read as it
arrives: by a hook that runs before those of the user.
"""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from operator import attrgetter

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils.hooks import RemovableHandle

from gradflow.hooks.after_pass import call_after_pass
from gradflow.hooks.processes.tensors import is_sharded
from gradflow.hooks.recording.parameter_table import Numbers
from gradflow.hooks.updates.known import Trained
from gradflow.hooks.updates.measures.many import Loop, Seen, dense_gradient, norm_of, norms

_current_task = torch._C._current_graph_task_id
_GRADIENT = attrgetter("grad")
_BEFORE = attrgetter("_backward_hooks")
_AFTER = attrgetter("_post_accumulate_grad_hooks")


class BackwardGradients:
    """Reads the gradients of the step under way.

    `is_wanted` says whether a gradient that now arrives is to be read, by the parameter's name.
    `on_arrival` is called with name and parameter, before a hook of the user can make the update.

    Fields:
        on_pass: called within each pass; what it returns is called when the pass has ended.
        put: called with names and the norms of their gradients, as a backward pass left them.
        drop: called with the names of parameters whose norms no longer hold: the gradients were
            zeroed after an earlier pass.
        taken: the parameters whose gradient was gone again when the last pass ended.
        missed: the parameters whose gradients have come and gone unseen, in any step.
    """

    def __init__(
        self, is_wanted: Callable[[str], bool], on_arrival: Callable[[str, Tensor], None]
    ) -> None:
        self.on_pass: Callable[[], Callable[[], None] | None] = lambda: None
        self.put: Callable[[Sequence[str], Numbers], None] = lambda names, norms: None
        self.drop: Callable[[AbstractSet[str]], None] = lambda names: None
        self.taken: set[str] = set()
        self.missed: set[str] = set()
        self._is_wanted = is_wanted
        self._on_arrival = on_arrival
        self._arrived: set[str] = set()
        self._reading = False
        # The number of the pass that is noticed; what autograd says if none is running counts too.
        self._noticed = {-1}
        self._loose: set[str] = set()
        self._hooks: dict[str, tuple[Parameter, RemovableHandle]] = {}
        self._followed: Trained | None = None
        self._square_sums = Loop("square_sum")

    def begin_step(self) -> None:
        """Forget what the step before has left."""
        self.taken = set()
        self._arrived = set()
        self._reading = False

    def follow_arrivals(self, trained: Trained) -> None:
        """Notice passes in this step, and read as they arrive the gradients that may not last.

        These are of parameters with hooks, and of those seen without a gradient after a pass.
        """
        self._reading = True
        if trained is self._followed and not self.missed:
            self._loose |= self._with_other_hooks(trained)
            return
        for name, parameter in trained.by_name.items():
            known = self._hooks.get(name)
            if known is not None and known[0] is not parameter:
                self._remove_hook(name)
                known = None
            if name in self.missed or _has_hooks(parameter, known[1] if known else None):
                self._loose.add(name)
            elif is_sharded(parameter):
                continue  # autograd fills another tensor
            if known is None:
                self._hooks[name] = (parameter, self._hook_on(name, parameter))
        self._followed = trained

    def pass_ended(self, parameters: Mapping[str, Parameter]) -> None:
        """Read the gradients of `parameters` after a backward pass."""
        tensors = list(map(_GRADIENT, parameters.values()))
        present, absent = list(parameters), set[str]()
        if type(None) in set(map(type, tensors)):
            present = [name for name, one in zip(present, tensors, strict=True) if one is not None]
            tensors = [one for one in tensors if one is not None]
            absent = parameters.keys() - set(present)
        if present:
            self.put(present, norms_of(tensors, self._square_sums))
        if self.taken or absent:
            self.taken = (self.taken - set(present)) | (absent & self._arrived)
        self.missed |= absent - self._loose
        self.drop(absent - self.taken)
        self._arrived.clear()

    def keep_only(self, names: AbstractSet[str]) -> None:
        """Forget the parameters that the model no longer has: those not among `names`."""
        for name in self._hooks.keys() - names:
            self._remove_hook(name)
        self.taken &= names
        self._arrived &= names

    def detach(self) -> None:
        """Take the hooks off the parameters."""
        for name in list(self._hooks):
            self._remove_hook(name)

    def _with_other_hooks(self, trained: Trained) -> set[str]:
        """The parameters with hooks of others, if those with hooks of ours are known."""
        after = [one for one in map(_AFTER, trained.tensors) if one]
        ours = len(self._hooks)
        if len(after) == ours == sum(map(len, after)) and not any(map(_BEFORE, trained.tensors)):
            return set()
        return {
            name
            for name, one in trained.by_name.items()
            if _has_hooks(one, self._hooks[name][1] if name in self._hooks else None)
        }

    def _remove_hook(self, name: str) -> None:
        self._loose.discard(name)
        self._followed = None
        if name in self._hooks:
            self._hooks.pop(name)[1].remove()

    def _hook_on(self, name: str, parameter: Parameter) -> RemovableHandle:
        # It is called for each parameter in each backward pass.
        def arrived(parameter: Tensor) -> None:
            if _current_task() not in noticed or name in loose:
                self._has_arrived(name, parameter)

        noticed, loose = self._noticed, self._loose

        handle: RemovableHandle = parameter.register_post_accumulate_grad_hook(arrived)
        hooks = parameter._post_accumulate_grad_hooks
        # Autograd calls them in the order of insertion, which `move_to_end` does not change.
        others = [(key, hooks.pop(key)) for key in list(hooks) if key != handle.id]
        hooks.update(others)
        return handle

    def _has_arrived(self, name: str, parameter: Tensor) -> None:
        if not self._reading:
            return
        task = _current_task()
        if task not in self._noticed:
            self._notice_pass(task)
        if name in self._loose and parameter.grad is not None and self._is_wanted(name):
            numbers = Numbers(1)
            numbers.put_each([0], [norm_of(dense_gradient(parameter.grad))])
            self.put([name], numbers)
            self._arrived.add(name)
            self._on_arrival(name, parameter)

    def _notice_pass(self, task: int) -> None:
        self._noticed.clear()
        self._noticed.update((-1, task))
        then = self.on_pass()
        if then is not None:
            call_after_pass(then)


def norms_of(tensors: Sequence[Tensor], loop: Loop | None = None) -> Numbers:
    """Return the L2 norm of each gradient, as `norm_of` does, in few calls.

    `loop` is one over sums of squares that has read such gradients before.
    """
    loop = loop or Loop("square_sum")
    seen = Seen(tensors, loop.looks[0] if loop.looks else None)
    return norms(loop, seen, lambda place: dense_gradient(tensors[place]))


def _has_hooks(parameter: Parameter, ours: RemovableHandle | None) -> bool:
    after: Mapping[int, object] = parameter._post_accumulate_grad_hooks or {}
    return bool(parameter._backward_hooks) or len(after) > (ours is not None)
