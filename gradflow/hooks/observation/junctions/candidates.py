"""What may be residual additions of a pass, and what is known of them from the pass before."""

from dataclasses import dataclass, field

from gradflow.hooks.observation.forward_passes import PendingJunction, PendingPass
from gradflow.hooks.recording.records import StepRecord
from gradflow.hooks.reduction.deferred.junction_records import JunctionRecord
from gradflow.hooks.reduction.deferred.waiting import Habit
from gradflow.hooks.reduction.parts import Part
from gradflow.hooks.residual.junctions import Found
from gradflow.hooks.residual.planned import JunctionPlan

# An operation in place on a view: the number of its graph's structure, and its place there.
OnView = tuple[int, int]


@dataclass(slots=True)
class Candidate:
    """A residual addition, if the operations `on_views` add, and not all in `merged_by`.

    `kept` is its record once it has its `name`. `habit` is what is known of its gradients.
    """

    module: str
    entry: JunctionRecord
    layers_on_skip: tuple[str, ...]
    on_views: tuple[OnView, ...]
    merged_by: tuple[OnView, ...]
    habit: Habit
    kept: JunctionRecord | PendingJunction | None = None
    part: Part = Part.WHOLE
    name: str = ""


@dataclass
class ObservedPass:
    """A recorded forward pass.

    Its additions have names at once, or, as long as it is not known of an operation in place on a
    view whether it adds, at the end of the backward pass, which tells.
    """

    record: StepRecord | PendingPass
    candidates: list[Candidate]
    named: bool = False


@dataclass
class KnownAdditions:
    """What follows from the structure of a graph, and from the modules that made its nodes.

    It holds as long as both are the same as in the pass before.

    Fields:
        found: as in the pass that it was made in.
        order: all that tells the modules, see `ModuleOrder.so_far`.
        structure: a number that tells the structure from others.
        modules: by the place of an addition, the module that made it; None if it is in no module,
            or in a recurrent cell and not gated.
        counts: of concatenations, of other sums, and of other changes of views.
        habits: what is known of the gradients at an addition, by its place.
        passes: how many passes had it.
        planned: from the second pass on, what need not be found again; None if something must.
        places: those of the additions found, in the order of `JunctionFinder.places_in`.
    """

    found: Found
    order: object
    structure: int
    modules: dict[int, str | None]
    counts: tuple[int, int, int]
    habits: dict[int, Habit]
    passes: int = 0
    planned: JunctionPlan | None = None
    places: list[int] = field(default_factory=list)
