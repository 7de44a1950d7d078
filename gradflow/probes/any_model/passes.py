"""A forward pass of any model whose residual additions are found, and can then be computed anew.

The first pass notes which call of `torch.add` makes which node of the autograd graph. The graph
tells which of them are residual and which summand is the skip. In later passes the same calls,
counted in order, return other values.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from gradflow.hooks.observation.junctions.observer import MODEL
from gradflow.hooks.residual.graph import LEAF, tensors_in
from gradflow.hooks.residual.junctions import Junction, find_junctions
from gradflow.hooks.residual.module_order import ModuleOrder, may_add
from gradflow.hooks.wrappers import named_modules
from gradflow.probes.probe import NotMeasurableError

_IN_PLACE = torch.Tensor.add_
_SUMS = frozenset({torch.add, torch.Tensor.add, _IN_PLACE})


class Sum(NamedTuple):
    """A call that adds two tensors: its number among such calls, and which of them is the skip."""

    number: int
    skip: int


class Result(NamedTuple):
    """A tensor that a call returned: the call's number among all, and the place in a tuple."""

    number: int
    place: int


@dataclass(frozen=True)
class Addition:
    """A residual addition of a model.

    Fields:
        layer: its name, the same as in `run.junctions`.
        skip_type: `identity`, `projection`, `gated` or `mixed`.
        junction: the addition in the autograd graph of the pass.
        call: the call that adds skip and branch; None if it isn't one call of these two.
    """

    layer: str
    skip_type: str
    junction: Junction
    call: Sum | None


@dataclass(frozen=True)
class Pass:
    """A forward pass.

    Fields:
        output: what the model returned.
        additions: its residual additions, in order of execution.
        start: the tensor that the first addition's skip and branch read.
        start_made: which call returned it; None if it was made within a call.
    """

    output: Any
    additions: list[Addition]
    start: GradientEdge
    start_made: Result | None


class _Call(NamedTuple):
    operands: tuple[tuple[int, int], ...]
    scaled: bool


class Noting(TorchFunctionMode):
    """Notes of each call which nodes of the graph it made, and of a sum also its operands."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[_Call] = []
        self._by_result: dict[tuple[int, int], int] = {}
        self._made: dict[tuple[int, int], Result] = {}
        self._count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = self._noted(func, args, kwargs or {})
        for place, one in enumerate(_tensors_of(result)):
            self._made.setdefault(_key_of(one), Result(self._count, place))
        self._count += 1
        return result

    def made(self, edge: GradientEdge) -> Result | None:
        """The call that returned the tensor `edge`."""
        return self._made.get((_number(edge.node), edge.output_nr))

    def _noted(self, func: Any, args: Any, kwargs: Any) -> Any:
        if not _is_sum(func, args):
            return func(*args, **kwargs)
        operands = tuple(_key_of(one) for one in args[:2])
        result = func(*args, **kwargs)
        self._by_result[_key_of(result)] = len(self._calls)
        self._calls.append(_Call(operands, kwargs.get("alpha", 1) != 1))
        return result

    def call_of(self, junction: Junction) -> Sum | None:
        """The call that is the addition, if its operands are skip and branch as they are."""
        number = self._by_result.get((junction.addition._sequence_nr(), 0))
        if number is None or junction.skip is None or self._calls[number].scaled:
            return None
        operands = self._calls[number].operands
        node, output = junction.skip
        skip = (_number(node), output)
        return Sum(number, operands.index(skip)) if operands.count(skip) == 1 else None


class Weights(NamedTuple):
    """y = skip * skip(x) + branch * branch(x); a factor of 0 leaves the summand out."""

    skip: float
    branch: float


class Reweighted(TorchFunctionMode):
    """Within it, the calls `weights` add their weighted summands; all others are as they were."""

    def __init__(self, weights: Mapping[Sum, Weights], watched: Result | None = None) -> None:
        super().__init__()
        self._weights = {call.number: (call.skip, factors) for call, factors in weights.items()}
        self._watched = watched
        self._sums = self._count = 0
        self.seen: GradientEdge | None = None

    def restart(self) -> None:
        """Count the calls of the next forward pass from 0 on."""
        self._sums = self._count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = self._weighted(func, args, kwargs or {})
        if self._watched is not None and self._watched.number == self._count:
            seen = _tensors_of(result)[self._watched.place]
            self.seen = get_gradient_edge(seen) if seen.requires_grad else None
        self._count += 1
        return result

    def _weighted(self, func: Any, args: Any, kwargs: Any) -> Any:
        if not _is_sum(func, args):
            return func(*args, **kwargs)
        place, factors = self._weights.get(self._sums, (0, None))
        self._sums += 1
        if factors is None:
            return func(*args, **kwargs)
        skip, branch = args[place], args[1 - place]
        # A factor of 0 keeps nan and infinity of the summand out too.
        terms = [one * by for one, by in ((skip, factors.skip), (branch, factors.branch)) if by]
        value = sum(terms[1:], terms[0]) if terms else torch.zeros_like(skip)
        return args[0].copy_(value) if func is _IN_PLACE else value


def first_pass(model: nn.Module, inputs: Any) -> Pass:
    """Run `model`, which is in evaluation mode, and find its residual additions.

    Raises `NotMeasurableError` if there are none, or no output needs a gradient.
    """
    order, noting = ModuleOrder(), Noting()
    handles = []
    for name, module in named_modules(model):
        if module is model or may_add(module):
            enter = partial(_enter, order, name or MODEL)
            leave = partial(_leave, order, name or MODEL)
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        with torch.enable_grad(), noting:
            output = run(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not any(one.requires_grad for one in tensors_in(output)):
        raise NotMeasurableError(
            f"what {type(model).__name__} returns has no gradient: it has no parameters and no "
            "inputs of real numbers, or it runs under torch.no_grad()"
        )
    counts: Counter[str] = Counter()
    additions = []
    for junction in find_junctions(output, order.start).junctions:
        within = order.module_at(junction.sequence)
        call = noting.call_of(junction)
        if within is None or within in order.cells or junction.on_views:
            continue
        counts[within] += 1
        layer = within if counts[within] == 1 else f"{within}+{counts[within]}"
        additions.append(Addition(layer, junction.skip_type, junction, call))
    if not additions:
        raise NotMeasurableError(
            f"no residual addition was found in {type(model).__name__}: no sum of a tensor, or a "
            "projection of it, and what is computed from the same tensor"
        )
    start = GradientEdge(*additions[0].junction.x)
    return Pass(output, additions, start, noting.made(start))


def run(model: nn.Module, inputs: Any) -> Any:
    """The output of `model`; inputs of real numbers get a gradient, and stay as they are."""
    if isinstance(inputs, Mapping):
        return model(**{name: _with_gradient(one) for name, one in inputs.items()})
    given = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
    return model(*map(_with_gradient, given))


@contextmanager
def in_evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Within it, `model` evaluates and its parameters need gradients; then all is as it was."""
    modes = {module: module.training for module in model.modules()}
    frozen = [one for one in model.parameters() if not one.requires_grad]
    real = [one for one in frozen if one.is_floating_point() or one.is_complex()]
    try:
        model.eval()
        for one in real:
            one.requires_grad_(True)
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for one in real:
            one.requires_grad_(False)


def number(value: Tensor | float) -> float:
    """A measured value as a number, without its gradient."""
    return float(value.detach() if isinstance(value, Tensor) else value)


def _with_gradient(one: Any) -> Any:
    if not isinstance(one, Tensor) or not (one.is_floating_point() or one.is_complex()):
        return one
    # A copy, because a model's first layer may work in place; not a leaf, for the same reason.
    return one.detach().clone().requires_grad_().view_as(one)


def _enter(order: ModuleOrder, name: str, module: nn.Module, _: Any) -> None:
    order.enter(name, module)


def _leave(order: ModuleOrder, name: str, _: nn.Module, __: Any, ___: Any) -> None:
    order.leave(name)


def _tensors_of(result: Any) -> list[Tensor]:
    given = result if isinstance(result, (tuple, list)) else (result,)
    return [one for one in given if isinstance(one, Tensor)]


def _is_sum(func: Any, args: Any) -> bool:
    return func in _SUMS and len(args) > 1 and all(isinstance(one, Tensor) for one in args[:2])


def _key_of(tensor: Tensor) -> tuple[int, int]:
    if not tensor.requires_grad:
        return -1, 0
    edge = get_gradient_edge(tensor)
    return _number(edge.node), edge.output_nr


def _number(node: torch.autograd.graph.Node) -> int:
    # Leaves have no number of their own in the order of execution.
    if node.name() == LEAF:
        return id(getattr(node, "variable", node))
    sequence: int = node._sequence_nr()
    return sequence
