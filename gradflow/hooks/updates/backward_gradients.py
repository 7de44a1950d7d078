"""The norms of the parameters' gradients as backward left them, before anything changes them.

They are read once a backward pass has ended, all together. That a pass runs shows at the first
gradient that arrives, whether or not it reaches an observed layer. A parameter that lets go of its
gradient within the pass, because a hook on it makes the update, has its gradient read as it
arrives: by a hook that runs before those of the user.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils.hooks import RemovableHandle

from gradflow.hooks.after_pass import call_after_pass
from gradflow.hooks.processes.tensors import is_sharded
from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.by_torch import sum_dtype
from gradflow.hooks.updates.previous_gradients import dense_gradient, norm_of


class BackwardGradients:
    """Holds the norms of the step under way.

    `is_wanted` says whether a gradient that now arrives is to be read, by the parameter's name.
    `on_arrival` is called with name and parameter, before a hook of the user can make the update.

    Fields:
        on_pass: called within each pass; what it returns is called when the pass has ended.
        norms: by parameter, as the last backward pass of the step has left its gradient.
        taken: the parameters whose gradient was gone again when that pass ended.
        missed: the parameters whose gradients have come and gone unseen, in any step.
    """

    def __init__(
        self, is_wanted: Callable[[str], bool], on_arrival: Callable[[str, Tensor], None]
    ) -> None:
        self.on_pass: Callable[[], Callable[[], None] | None] = lambda: None
        self.norms: dict[str, Tensor | float] = {}
        self.taken: set[str] = set()
        self.missed: set[str] = set()
        self._is_wanted = is_wanted
        self._on_arrival = on_arrival
        self._arrived: set[str] = set()
        self._reading = False
        self._pass_noticed = -1
        self._loose: set[str] = set()
        self._hooks: dict[str, tuple[Parameter, RemovableHandle]] = {}

    def begin_step(self) -> None:
        """Forget the norms of the step before."""
        self.norms = {}
        self.taken = set()
        self._arrived = set()
        self._reading = False

    def follow_arrivals(self, parameters: Mapping[str, Parameter]) -> None:
        """Notice passes in this step, and read as they arrive the gradients that may not last.

        These are of parameters with hooks, and of those seen without a gradient after a pass.
        """
        self._reading = True
        for name, parameter in parameters.items():
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

    def pass_ended(self, parameters: Mapping[str, Parameter]) -> None:
        """Read the gradients of `parameters` after a backward pass."""
        present = {name: one.grad for name, one in parameters.items() if one.grad is not None}
        found = norms_of([dense_gradient(gradient) for gradient in present.values()])
        self.norms |= dict(zip(present, found, strict=True))
        absent = parameters.keys() - present.keys()
        self.taken = (self.taken - present.keys()) | (absent & self._arrived)
        self.missed |= absent - self._loose
        for name in absent - self.taken:
            self.norms.pop(name, None)  # it was zeroed after an earlier pass
        self._arrived.clear()

    def keep_only(self, names: AbstractSet[str]) -> None:
        """Forget the parameters that the model no longer has: those not among `names`."""
        for name in self.norms.keys() - names:
            del self.norms[name]
        for name in self._hooks.keys() - names:
            self._remove_hook(name)
        self.taken &= names
        self._arrived &= names

    def detach(self) -> None:
        """Take the hooks off the parameters."""
        for name in list(self._hooks):
            self._remove_hook(name)

    def _remove_hook(self, name: str) -> None:
        self._loose.discard(name)
        if name in self._hooks:
            self._hooks.pop(name)[1].remove()

    def _hook_on(self, name: str, parameter: Parameter) -> RemovableHandle:
        def arrived(parameter: Tensor) -> None:
            if not self._reading:
                return
            self._notice_pass()
            if name in self._loose and parameter.grad is not None and self._is_wanted(name):
                self.norms[name] = norm_of(dense_gradient(parameter.grad))
                self._arrived.add(name)
                self._on_arrival(name, parameter)

        handle: RemovableHandle = parameter.register_post_accumulate_grad_hook(arrived)
        hooks = parameter._post_accumulate_grad_hooks
        # Autograd calls them in the order of insertion, which `move_to_end` does not change.
        others = [(key, hooks.pop(key)) for key in list(hooks) if key != handle.id]
        hooks.update(others)
        return handle

    def _notice_pass(self) -> None:
        task = torch._C._current_graph_task_id()
        if task not in (-1, self._pass_noticed):
            self._pass_noticed = task
            then = self.on_pass()
            if then is not None:
                call_after_pass(then)


def norms_of(tensors: Sequence[Tensor]) -> list[Tensor | float]:
    """Return the L2 norm of each tensor, as `norm_of` does, with few calls on a device."""
    found: list[Tensor | float | None] = [None] * len(tensors)
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = defaultdict(list)
    for place, tensor in enumerate(tensors):
        if tensor.device.type == "cpu" and cpu.loops_module() is not None:
            found[place] = norm_of(tensor)
        else:
            groups[tensor.device, tensor.dtype].append(place)
    for places in groups.values():
        group = [tensors[place] for place in places]
        norms = torch._foreach_norm(group, 2, dtype=sum_dtype(group[0]))
        for place, norm in zip(places, norms, strict=True):
            found[place] = norm
    return [one for one in found if one is not None]


def _has_hooks(parameter: Parameter, ours: RemovableHandle | None) -> bool:
    after: Mapping[int, object] = parameter._post_accumulate_grad_hooks or {}
    return bool(parameter._backward_hooks) or len(after) > (ours is not None)
