"""Which forward passes belong to a step: by mode, gradients and thread; and why others do not."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from gradflow.hooks.observation.checkpointing import CallContext, context_of_call, in_backward
from gradflow.hooks.recording.records import StepRecord
from gradflow.hooks.reduction.deferred.junction_records import JunctionRecord, Products, Seen
from gradflow.hooks.reduction.parts import Part
from gradflow.hooks.refusals import second_thread_message

_is_grad_enabled, _current_task = torch.is_grad_enabled, torch._C._current_graph_task_id

EVALUATION = "ran in evaluation mode"
WITHOUT_GRADIENTS = "ran without gradients"
OTHER_THREAD = "ran in a second thread"


class ForwardPasses:
    """Tells whether the running call of a module belongs to the step.

    Args:
        model: the whole model, whose mode counts.
        every_mode: whether passes in evaluation mode count too, once they are differentiated.
        report: says once that something is not recorded; takes a kind and a message.

    Fields:
        model: as given.
        thread: that in which the passes of the step run; None as long as it is not known.
        is_trial: whether the pass under way is a trial by a pipeline, and does not count.
    """

    def __init__(
        self, model: nn.Module, report: Callable[[str, str], None], *, every_mode: bool = False
    ) -> None:
        self.model = model
        self._every_mode = every_mode
        self._report = report
        self.is_trial = False
        self.thread: int | None = None

    @property
    def must_be_differentiated(self) -> bool:
        """Whether a pass that runs now counts only once a backward pass reaches it."""
        return not self.model.training

    def is_ordinary(self) -> bool:
        """Whether `context` is known to be that of an ordinary pass in training mode; cheap."""
        return (
            self.model.training
            and not self.is_trial
            and _is_grad_enabled()
            and _current_task() == -1
            and threading.get_ident() == self.thread
        )

    def forget(self) -> None:
        """At the end of a step: the next one may run in another thread."""
        self.thread = None

    def context(self) -> CallContext | None:
        """Return the context of the running call, or None if it does not belong to the step."""
        if self.is_trial or not (self.model.training or self._every_mode):
            return None
        context = context_of_call()
        # Autograd runs checkpointed segments again in its own threads.
        if context is None or in_backward():
            return context
        # Autograd numbers the nodes of each thread on its own: their order would be unknown.
        thread = threading.get_ident()
        if self.thread is None:
            self.thread = thread
        if thread != self.thread:
            self._report("threads", second_thread_message())
            return None
        return context

    def why_left_out(self) -> str | None:
        """Say why the running call has no context; None if it repeats another one."""
        if not (self.model.training or self._every_mode):
            return EVALUATION
        if self.is_trial or in_backward():
            return None
        return OTHER_THREAD if torch.is_grad_enabled() else WITHOUT_GRADIENTS


@dataclass
class PendingPass:
    """A forward pass in evaluation mode: part of `record` once a backward pass reaches it.

    Without this, validation with gradients enabled would be taken for training.
    """

    record: StepRecord
    _activations: list[tuple[str, Seen]] = field(default_factory=list)
    _junctions: dict[str, JunctionRecord] = field(default_factory=dict)
    _modes: dict[str, str] = field(default_factory=dict)
    _committed: bool = False

    @property
    def histograms(self) -> bool:
        """Whether magnitudes are counted in this step."""
        return self.record.histograms

    @property
    def loss_share(self) -> float:
        """The factor of this process's loss in that of the whole batch."""
        return self.record.loss_share

    @property
    def closed(self) -> bool:
        """Whether the step has ended."""
        return self.record.closed

    def add_activation(self, layer: str, seen: Seen) -> None:
        """Add the moments of the output of `layer`."""
        self._activations.append((layer, seen))

    def note_mode(self, layer: str, mode: str) -> None:
        """Note the mode in which `layer` ran."""
        self._modes[layer] = mode

    def add_gradient(self, layers: Sequence[str], seen: Seen) -> None:
        """Add the moments of the gradient that `layers` share: the pass is differentiated."""
        self._commit()
        self.record.add_gradient(layers, seen)

    def add_junction(self, layer: str, entry: JunctionRecord) -> "JunctionRecord | PendingJunction":
        """Add the junction of the block `layer`; return what takes its gradients."""
        if self._committed:
            return self.record.add_junction(layer, entry)
        self._junctions[layer] = entry
        return PendingJunction(self, layer)

    def add_products(self, layer: str, products: Products, part: Part) -> None:
        """Add the gradient products of the junction `layer`: the pass is differentiated.

        Ignored once the step has ended.
        """
        self._commit()
        junction = self.record.junctions.get(layer)  # none, if a failed pass was undone since
        if not self.closed and junction is not None:
            junction.add_products(products, part)

    def _commit(self) -> None:
        if self._committed or self.record.closed:
            return
        self._committed = True
        for layer, seen in self._activations:
            self.record.add_activation(layer, seen)
        for layer, entry in self._junctions.items():
            self.record.add_junction(layer, entry)
        self.record.modes.update(self._modes)


@dataclass(frozen=True)
class PendingJunction:
    """Takes the gradient products of one junction of a pending pass."""

    forward_pass: PendingPass
    layer: str

    def add_products(self, products: Products, part: Part = Part.WHOLE) -> None:
        """Add the products of one backward pass, which are of `part` of the gradients."""
        self.forward_pass.add_products(self.layer, products, part)
