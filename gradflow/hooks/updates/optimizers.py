"""The optimizers that update a model: found inside wrappers, watched, and looked up by parameter.

A step ends once every optimizer has stepped. If only some have, it ends when the next forward pass
of the model begins, when one of them steps again, or with the epoch.
"""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial, wraps
from typing import Any

import torch
from torch import nn
from torch.autograd import Variable
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from gradflow.errors import TracingError
from gradflow.hooks.observation.hook import LeftOutOfCopies
from gradflow.hooks.recording.records import Owners, UpdatedBy
from gradflow.hooks.wrappers import named_parameters, unwrapped
from gradflow.runs.format.update_tables import NO_OPTIMIZER

_OPTIMIZER_FILE = inspect.getfile(torch.optim.Optimizer)
# Under these names wrappers keep the optimizer that they wrap: accelerate, Lightning and mmengine
# the first, sharpness-aware minimization and Opacus the next two, torch's ZeRO the fourth.
_INNER = ("optimizer", "base_optimizer", "original_optimizer", "optim", "_optimizer")

# A group of an optimizer: what is known of it, and its parameters.
Place = tuple[UpdatedBy, list[torch.Tensor]]


class Optimizers:
    """Follows the steps of one or several optimizers that update one model.

    Args:
        given: a torch optimizer, a wrapper that leads to one, or several in a list or mapping.
        model: the model as the training calls it, with what wraps it.
        on_begin: called when an optimizer begins its step, with the optimizer, and whether it is
            the first in this step; returns whether the gradients of the step are wanted.
        on_gradients: called once it has its gradients, with the names of the parameters it has
            (None: all of the model's), if they are wanted: at once, or after the first call of a
            closure given to it.
        on_end: called when the step has ended.
        is_capturing: returns whether what runs now is captured in a CUDA graph.
        on_capture: called when the step of an optimizer is captured; returns whether its replays,
            of which no hook tells, are followed by other means. If so, the captured step is no
            step of the training.
        is_paused: returns whether passes that run now are not part of the step.

    Fields:
        ends_late: whether the step that ends now is over already since the next forward pass, which
            nothing has shown.

    Raises `TracingError` if something given does not lead to a torch optimizer.
    """

    def __init__(
        self,
        given: Any,
        model: nn.Module,
        on_begin: Callable[[Optimizer, bool], bool],
        on_gradients: Callable[[Collection[str] | None], None],
        on_end: Callable[[], None],
        is_capturing: Callable[[], bool] = lambda: False,
        on_capture: Callable[[], bool] = lambda: False,
        is_paused: Callable[[], bool] = lambda: False,
    ) -> None:
        self._is_paused = is_paused
        self._model, wrappers = unwrapped(model)
        self._called = (*wrappers, self._model)
        self._on_begin = on_begin
        self._on_gradients = on_gradients
        self._on_end = on_end
        self._is_capturing = is_capturing
        self._on_capture = on_capture
        self._captured: dict[int, list[Place]] = {}
        self.ends_late = False
        self._chains = [hooked_optimizers(one) for one in _each(given)]
        self._labels = _labels([chain[0] for chain in self._chains])
        self._stepped: set[int] = set()
        self._names: dict[int, str] = {}
        self._places: dict[int, list[Place]] = {}
        # By identity, the parameters in each place and those of the model, and whose each is.
        self._members: tuple[list[list[int]], list[int], list[str]] = [], [], []
        self._owners: dict[str, int] = {}
        self._stepping: int | None = None
        self._handles: list[RemovableHandle] = []

    def __contains__(self, optimizer: object) -> bool:
        return self._index_of(optimizer) is not None

    @property
    def count(self) -> int:
        """How many optimizers there are, each with what it wraps counted once."""
        return len(self._chains)

    @property
    def captured(self) -> int:
        """Of how many optimizers the step was captured in a CUDA graph, and is replayed."""
        return len(self._captured)

    def attach(self) -> None:
        """Put hooks on the optimizers and, if there are several, on the model's forward pass."""
        for index, chain in enumerate(self._chains):
            for one in chain:
                begins, ends = self._hooks_of(index)
                self._handles.append(one.register_step_pre_hook(begins))
                self._handles.append(one.register_step_post_hook(ends))
        if len(self._chains) > 1:
            begins = LeftOutOfCopies(self._forward_begins)
            for module in self._called:
                before = module.register_forward_pre_hook(begins, prepend=True)
                self._handles.append(before)

    def detach(self) -> None:
        """Take off the hooks put on by `attach`."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def end_step(self) -> None:
        """End the step if an optimizer has stepped in it; else do nothing."""
        if self._stepped:
            self._stepped.clear()
            self._on_end()
            self._places.clear()
            self._names.clear()

    def skip(self, optimizer: object) -> None:
        """Count a step of `optimizer` that its scaler left out; may end the step."""
        index = self._index_of(optimizer)
        if index is not None:
            if self._begins(index, self._chains[index][0]):
                self._on_gradients(self._names_for(index))
            self._has_stepped(index)

    def updated_by(self, parameters: Mapping[str, torch.Tensor]) -> Owners:
        """Where each of `parameters` is updated, by its name."""
        # A scheduler may have changed the rate of one that has stepped, before the step ends.
        places = [
            place
            for index in range(len(self._chains))
            for place in self._places.get(index) or self._replayed_places(index)
        ]
        members = [list(map(id, updated)) for _, updated in places]
        of_parameters, names = list(map(id, parameters.values())), list(parameters)
        if (members, of_parameters, names) != self._members:
            self._members = members, of_parameters, names
            found: dict[int, int] = {}
            for number, one in enumerate(members):
                for key in one:
                    found.setdefault(key, number)
            numbers = [found.get(key, len(places)) for key in of_parameters]
            self._owners = dict(zip(names, numbers, strict=True))
        return Owners(self._owners, [here for here, _ in places] + [UpdatedBy(NO_OPTIMIZER)])

    def _replayed_places(self, index: int) -> list[Place]:
        """The groups of an optimizer: if its step is replayed, with the rates then captured."""
        return self._captured.get(index) or self._places_of(index)

    def _places_of(self, index: int) -> list[Place]:
        """The groups of an optimizer with their learning rates at present."""
        places: list[Place] = []
        for number, group in enumerate(self._chains[index][0].param_groups):
            # Fused optimizers may keep the rate in a tensor, on the device: reading it waits.
            rate = group.get("lr")
            known = None if rate is None or isinstance(rate, torch.Tensor) else float(rate)
            places.append((UpdatedBy(self._labels[index], number, known), group["params"]))
        return places

    def _hooks_of(self, index: int) -> tuple[Callable[..., Any], Callable[..., None]]:
        waiting: list[Callable[[], None]] = []

        def receives() -> None:
            if waiting:
                waiting.pop()()

        def begins(optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
            if _depth(self._chains[index]) > 1:
                return None
            if self._is_capturing() and self._on_capture():
                self._captured[index] = self._places_of(index)
                return None
            self._stepping = index
            waiting.clear()
            if not self._begins(index, optimizer):
                return None
            waiting.append(partial(self._on_gradients, self._names_for(index)))
            with_closure = _then(args, kwargs, receives)
            if with_closure is None:
                receives()
            return with_closure

        def ends(*_: Any) -> None:
            if _depth(self._chains[index]) > 1 or (
                index in self._captured and self._is_capturing()
            ):
                return
            receives()  # a closure that was not called
            self._stepping = None
            self._has_stepped(index)

        # If the optimizer's step is compiled, these run in Python all the same.
        return torch.compiler.disable(begins), torch.compiler.disable(ends)

    def _index_of(self, optimizer: object) -> int | None:
        """Which of the optimizers given is, or wraps, `optimizer`; None if none is."""
        for index, chain in enumerate(self._chains):
            if any(one is optimizer for one in chain):
                return index
        return None

    def _begins(self, index: int, optimizer: Optimizer) -> bool:
        """Begin the step of an optimizer; return whether its gradients are wanted."""
        if index in self._stepped:
            self.ends_late = True
            self.end_step()  # it steps again before the others have
            self.ends_late = False
        wanted = self._on_begin(optimizer, not self._stepped)
        if wanted:
            self._places[index] = self._places_of(index)
        return wanted

    def _has_stepped(self, index: int) -> None:
        self._stepped.add(index)
        shown = set(range(len(self._chains))).difference(self._captured)
        if not self._stepped.issuperset(shown or range(len(self._chains))):
            return
        if torch._C._current_graph_task_id() == -1:
            self.end_step()
        else:
            # Optimizers that step as their gradients arrive: the layers' are not all there yet.
            Variable._execution_engine.queue_callback(self.end_step)

    def _names_for(self, index: int) -> Collection[str] | None:
        """The parameters to measure when optimizer `index` begins; None for all of the model's.

        They are its own, and, if it is the first in this step, those that no optimizer has.
        """
        if len(self._chains) == 1:
            return None
        if not self._stepped or not self._names:
            self._names = {id(p): name for name, p in named_parameters(self._model)}
        mine = _parameters_of(self._chains[index][0])
        own = {self._names[id(p)] for p in mine if id(p) in self._names}
        if not self._stepped:
            owned = {id(p) for chain in self._chains for p in _parameters_of(chain[0])}
            own |= {name for key, name in self._names.items() if key not in owned}
        return own

    def pass_begins(self) -> bool:
        """A forward pass begins: end the step if some optimizers have stepped in it, or do not.

        Return whether it was ended.
        """
        # An optimizer that calls a closure runs the model within its step, which may have failed.
        if self._stepping is not None and not _depth(self._chains[self._stepping]):
            self._stepping = None
        if self._stepping is not None or not self._stepped:
            return False
        self.end_step()
        return True

    def _forward_begins(self, module: nn.Module, args: Any) -> None:
        if torch.compiler.is_compiling() or self._is_capturing():
            return  # a model compiled in place; the hook of a wrapper runs in Python
        if self._is_paused() or not torch.is_grad_enabled():
            return  # no pass of a step
        listed = set(module._forward_pre_hooks)
        if not self.pass_begins():
            return
        # torch listed the hooks of this call before: those of the step that begins are not there.
        for key, hook in list(module._forward_pre_hooks.items()):
            if key not in listed and key not in module._forward_pre_hooks_with_kwargs:
                hook(module, args)


def hooked_optimizers(optimizer: Any) -> list[Optimizer]:
    """`optimizer` and those that it wraps, outermost first, as far as torch runs hooks on them.

    Raises `TracingError` if there is none.
    """
    found: list[Optimizer] = []
    seen: set[int] = set()
    inner: Any = optimizer
    while inner is not None and id(inner) not in seen:
        seen.add(id(inner))
        # A wrapper may be an Optimizer by class only, and never have been set up as one.
        if isinstance(inner, Optimizer) and "_optimizer_step_pre_hooks" in vars(inner):
            found.append(inner)
        inner = next((one for name in _INNER if (one := _inner(inner, name)) is not None), None)
    if not found:
        raise TracingError(
            f"optimizer={type(optimizer).__name__} is no torch optimizer, and none was found in "
            f"its attributes {', '.join(_INNER)}: give the tracer the torch.optim.Optimizer that "
            "takes the steps, or leave it out and call tracer.step() after each update"
        )
    return found


def _then(
    args: tuple[Any, ...], kwargs: dict[str, Any], function: Callable[[], None]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The arguments of a `step` whose closure calls `function` at its end; None without one."""
    closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
    if not callable(closure):
        return None

    @wraps(closure)
    def called(*inner: Any, **named: Any) -> Any:
        result = closure(*inner, **named)
        function()
        return result

    if "closure" in kwargs:
        return args, {**kwargs, "closure": called}
    return (args[0], called, *args[2:]), kwargs


def _parameters_of(optimizer: Optimizer) -> Iterable[torch.Tensor]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])


def _inner(wrapper: Any, name: str) -> Any:
    """What `wrapper` keeps under `name`, if that may be an optimizer."""
    try:
        inner = getattr(wrapper, name, None)
    except Exception:  # a property of a wrapper that is not ready yet
        return None
    return inner if hasattr(inner, "param_groups") or hasattr(inner, "step") else None


def _each(given: Any) -> Iterable[Any]:
    if isinstance(given, Mapping):
        given = list(given.values())
    if isinstance(given, list | tuple):
        if not given:
            raise TracingError(
                "optimizer= is empty: give the tracer at least one optimizer, or leave it out and "
                "call tracer.step() after each update"
            )
        return given
    return [given]


def _labels(optimizers: list[Optimizer]) -> list[str]:
    """The class of each optimizer, numbered from the second of its class on."""
    labels: list[str] = []
    for one in optimizers:
        name = type(one).__name__
        same = sum(label.partition("#")[0] == name for label in labels)
        labels.append(f"{name}#{same + 1}" if same else name)
    return labels


def _depth(chain: list[Optimizer]) -> int:
    """How many steps of these optimizers are under way, each within the one before.

    An optimizer whose `step` calls its base class's, or that of the one it wraps, runs hooks twice.
    """
    steps, frame = 0, inspect.currentframe()
    while frame is not None:
        code = frame.f_code
        if code.co_filename == _OPTIMIZER_FILE and code.co_name == "wrapper":
            stepping = frame.f_locals.get("self")
            steps += any(stepping is one for one in chain)
        frame = frame.f_back
    return steps
