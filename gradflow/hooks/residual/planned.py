"""Watches the residual additions of a graph that is known, at less than finding them in it anew.

What the first passes have found is kept by place: which node is which in a graph of that structure,
which of them are to be watched, and for which additions. A pass fills in the nodes.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node

from gradflow.hooks.reduction.deferred.waiting import Habit
from gradflow.hooks.residual.gradients import as_at_input, values_if_nested
from gradflow.hooks.residual.graph import Graph, Structure
from gradflow.hooks.residual.junctions import Junction, alpha_of

_current_task = torch._C._current_graph_task_id
_SKIP, _BRANCH, _OTHER = range(3)
_Gradients = tuple[Tensor | None, ...]
# A gradient, several that are to be added up, or none so far.
_Held = Tensor | list[Tensor] | None
# Place of a node and index of its output.
_At = tuple[int, int]


class PlannedJunction(NamedTuple):
    """What is known of a residual addition in each pass; the fields as in `Junction`.

    Fields:
        skips, branches: what is known of its summands, where no layer has computed them.
    """

    name: str
    skip_type: str
    place: int
    skip: _At | None
    branch: _At | None
    is_direct: bool
    skips: Habit
    branches: Habit


class JunctionPlan:
    """The residual additions in graphs of one structure.

    Fields:
        structure: of the graphs.
        junctions: those that are recorded, in order.
        before: nodes by their places, with the additions of which they are the sum, and those whose
            input they computed, with the index of the output.
        after: nodes by their places, with the position of the input that is read, and of which
            addition it is the gradient of the skip, of the branch or of another operation.
    """

    def __init__(self, graph: Graph, names: Sequence[str], found: Sequence[Junction]) -> None:
        places = {node: place for place, node in enumerate(graph.nodes)}
        self.structure: Structure = graph.structure
        self.junctions: list[PlannedJunction] = []
        before: dict[int, tuple[list[int], list[_At]]] = {}
        self.after: list[tuple[int, int, int, int]] = []
        for number, (name, one) in enumerate(zip(names, found, strict=True)):
            skip, branch = (
                None if made is None else (places[made[0]], made[1])
                for made in (one.skip, one.branch)
            )
            self.junctions.append(
                PlannedJunction(
                    name,
                    one.skip_type,
                    one.place,
                    skip,
                    branch,
                    one.is_direct,
                    Habit(f"the skip of {name}"),
                    Habit(f"the branch of {name}"),
                )
            )
            edges = [(_BRANCH, one.branch_edges), (_OTHER, one.other_edges)]
            if one.is_direct:
                before.setdefault(one.place, ([], []))[0].append(number)
            else:
                edges.insert(0, (_SKIP, one.skip_edges))
            for kind, given in edges:
                self.after += [(places[node], at, number, kind) for node, at in given]
            node, output = one.x
            before.setdefault(places[node], ([], []))[1].append((number, output))
        self.before = [(place, tuple(a), tuple(b)) for place, (a, b) in before.items()]
        self._alphas = [(one.place, alpha_of(one.addition)) for one in found]

    def holds(self, graph: Graph) -> bool:
        """Whether the plan is for this graph; shapes are not compared."""
        if graph.structure is not self.structure:
            return False
        nodes = graph.nodes
        return all(alpha_of(nodes[place]) == alpha for place, alpha in self._alphas)


class PlannedPass:
    """Calls `multiply` with the number of an addition and its gradients, as a pass computes them.

    Each is called with dL/dx and those of the skip, of the branch and of other operations that read
    x, if skip and branch have one. `belongs` says whether a backward pass belongs to the step.
    """

    __slots__ = ("_belongs", "_held", "_multiply", "_plan", "_task")

    def __init__(
        self,
        plan: JunctionPlan,
        nodes: Sequence[Node],
        belongs: Callable[[], bool],
        multiply: Callable[[int, Tensor, Tensor, Tensor, Sequence[Tensor]], None],
    ) -> None:
        self._plan = plan
        self._task = -1
        self._belongs = belongs
        self._multiply = multiply
        self._held: tuple[list[_Held], ...] = tuple(
            [None] * len(plan.junctions) for _ in range(_OTHER + 1)
        )
        for place, sums, inputs in plan.before:
            nodes[place].register_prehook(_Before(self, sums, inputs))
        for place, position, number, kind in plan.after:
            nodes[place].register_hook(_After(self, position, number, kind))

    def is_wanted(self) -> bool:
        """Whether the backward pass now running belongs to the step."""
        task = _current_task()
        if task != self._task:
            if not self._belongs():
                return False
            self._task = task
            for one in self._held:  # what another pass has left, which has failed
                one[:] = [None] * len(one)
        return True

    def hold(self, kind: int, number: int, gradient: Tensor) -> None:
        """Hold a gradient until that of x is known."""
        if gradient.is_nested:
            gradient = values_if_nested(gradient)
        held = self._held[kind]
        before = held[number]
        if before is None:
            held[number] = gradient
        elif isinstance(before, list):
            before.append(gradient)
        else:
            held[number] = [before, gradient]

    def at_input(self, number: int, whole: Tensor | None) -> None:
        """Take dL/dx, the last of the gradients of an addition."""
        skips, branches, others = self._held
        skip, branch, other = skips[number], branches[number], others[number]
        skips[number] = branches[number] = others[number] = None
        if whole is None or skip is None or branch is None:
            return
        if (
            other is None
            and type(whole) is type(skip) is type(branch) is Tensor
            and not whole.is_nested
            and whole.shape == skip.shape == branch.shape
            and whole.dtype is skip.dtype
        ):
            self._multiply(number, whole, skip, branch, ())
            return
        direct = self._plan.junctions[number].is_direct
        self._multiply(number, *as_at_input(whole, skip, branch, other, is_direct=direct))


class _Before:
    """The hook before a node."""

    __slots__ = ("_inputs", "_of", "_sums")

    def __init__(self, of: PlannedPass, sums: Sequence[int], inputs: Sequence[_At]) -> None:
        self._of, self._sums, self._inputs = of, sums, inputs

    def __call__(self, arrived: _Gradients) -> None:
        of = self._of
        if not of.is_wanted():
            return
        gradient = arrived[0]
        if gradient is not None:
            for number in self._sums:
                of.hold(_SKIP, number, gradient)
        for number, output in self._inputs:
            of.at_input(number, arrived[output])


class _After:
    """The hook after a node, on what it sends over one of its inputs."""

    __slots__ = ("_kind", "_number", "_of", "_position")

    def __init__(self, of: PlannedPass, position: int, number: int, kind: int) -> None:
        self._of, self._position, self._number, self._kind = of, position, number, kind

    def __call__(self, sent: _Gradients, _: _Gradients) -> None:
        gradient = sent[self._position]
        of = self._of
        if gradient is not None and of.is_wanted():
            of.hold(self._kind, self._number, gradient)
