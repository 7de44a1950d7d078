"""The norms of the parameters' gradients as backward left them, before anything changes them.

They are read once a backward pass has ended, all together. A parameter that lets go of its
gradient within the pass, because a hook on it makes the update, has its gradient read as it
arrives: by a hook that runs before those of the user.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils.hooks import RemovableHandle

from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.by_torch import sum_dtype
from gradflow.hooks.updates.previous_gradients import dense_gradient, norm_of


class BackwardGradients:
    """Holds the norms of the step under way.

    `is_wanted` says whether a gradient that now arrives is to be read, by the parameter's name.
    `on_arrival` is called with name and parameter, before a hook of the user can make the update.

    Fields:
        norms: by parameter, as the last backward pass of the step has left its gradient.
        taken: the parameters whose gradient was gone again when that pass ended.
        missed: the parameters whose gradients have come and gone unseen, in any step.
    """

    def __init__(
        self, is_wanted: Callable[[str], bool], on_arrival: Callable[[str, Tensor], None]
    ) -> None:
        self.norms: dict[str, Tensor | float] = {}
        self.taken: set[str] = set()
        self.missed: set[str] = set()
        self._is_wanted = is_wanted
        self._on_arrival = on_arrival
        self._arrived: set[str] = set()
        self._reading = False
        self._arrivals: dict[str, tuple[Parameter, RemovableHandle]] = {}

    def begin_step(self) -> None:
        """Forget the norms of the step before."""
        self.norms = {}
        self.taken = set()
        self._arrived = set()
        self._reading = False

    def follow_arrivals(self, parameters: Mapping[str, Parameter]) -> None:
        """Have gradients read as they arrive in this step: of those that may not keep them.

        These are parameters with hooks, and those that were seen without a gradient after a pass.
        """
        self._reading = True
        for name, parameter in parameters.items():
            known = self._arrivals.get(name)
            if known is not None and known[0] is parameter:
                continue
            if known is not None:
                self._arrivals.pop(name)[1].remove()
            if name in self.missed or _has_hooks(parameter):
                self._arrivals[name] = (parameter, self._hook_on(name, parameter))

    def pass_ended(self, parameters: Mapping[str, Parameter]) -> None:
        """Read the gradients of `parameters` after a backward pass."""
        present = {name: one.grad for name, one in parameters.items() if one.grad is not None}
        found = norms_of([dense_gradient(gradient) for gradient in present.values()])
        self.norms |= dict(zip(present, found, strict=True))
        absent = parameters.keys() - present.keys()
        self.taken = (self.taken - present.keys()) | (absent & self._arrived)
        self.missed |= absent - self._arrivals.keys()
        for name in absent - self.taken:
            self.norms.pop(name, None)  # it was zeroed after an earlier pass
        self._arrived.clear()

    def keep_only(self, names: AbstractSet[str]) -> None:
        """Forget the parameters that the model no longer has: those not among `names`."""
        for name in self.norms.keys() - names:
            del self.norms[name]
        for name in self._arrivals.keys() - names:
            self._arrivals.pop(name)[1].remove()
        self.taken &= names
        self._arrived &= names

    def detach(self) -> None:
        """Take the hooks off the parameters."""
        for _, handle in self._arrivals.values():
            handle.remove()
        self._arrivals.clear()

    def _hook_on(self, name: str, parameter: Parameter) -> RemovableHandle:
        def arrived(parameter: Tensor) -> None:
            if self._reading and parameter.grad is not None and self._is_wanted(name):
                self.norms[name] = norm_of(dense_gradient(parameter.grad))
                self._arrived.add(name)
                self._on_arrival(name, parameter)

        handle: RemovableHandle = parameter.register_post_accumulate_grad_hook(arrived)
        hooks = parameter._post_accumulate_grad_hooks
        # Autograd calls them in the order of insertion, which `move_to_end` does not change.
        others = [(key, hooks.pop(key)) for key in list(hooks) if key != handle.id]
        hooks.update(others)
        return handle


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


def _has_hooks(parameter: Parameter) -> bool:
    hooks: tuple[Collection[object] | None, ...] = (
        parameter._post_accumulate_grad_hooks,
        parameter._backward_hooks,
    )
    return any(hooks)
