"""Hooks on a model's layers, which have outputs and their gradients reduced to moments.

Gradients are read by tensor hooks on the outputs. Module hooks would forbid in-place operations on
an output, such as `ReLU(inplace=True)` or `out += identity`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from gradflow.hooks.layers import LayerTable
from gradflow.hooks.observation.checkpointing import in_backward
from gradflow.hooks.observation.forward_passes import ForwardPasses, PendingPass
from gradflow.hooks.observation.hook import Hook, ModuleHooks
from gradflow.hooks.observation.junctions.observer import JunctionObserver
from gradflow.hooks.observation.layer_calls import CallsOfModules, LayerRan
from gradflow.hooks.observation.layer_hook import LayerHook
from gradflow.hooks.observation.layer_recorder import LayerRecorder
from gradflow.hooks.observation.outputs import KeepsOutputs, OutputReader
from gradflow.hooks.observation.passes import BackwardPasses, Savepoint
from gradflow.hooks.observation.structure import Structure
from gradflow.hooks.observation.unobserved import (
    UnobservedLayers,
)
from gradflow.hooks.processes.layouts import Layouts
from gradflow.hooks.processes.pipelines import is_trial_pass
from gradflow.hooks.recording.records import StepRecord
from gradflow.hooks.reduction.deferred.reductions import Reductions
from gradflow.hooks.refusals import hooks_removed_message, overwritten_message


class LayerObserver:
    """Fills `record` while the model trains; if `record` is None, hooks return at once.

    Only forward passes with gradients enabled are observed, by default those in training mode.

    Args:
        model: the whole model, whose forward is one forward pass.
        observed: name, module and role of each module to observe.
        layers: the table to which layers are added when they first run.
        report: says once that something is not recorded; takes a kind and a message.
        every_pass: record every backward pass; else those that fill `.grad` (`BackwardPasses`).
        every_mode: record passes in evaluation mode too, if they are differentiated.
        every_output: observe all tensors of an output, each as a row of its own; else the first.
        parts: how many processes share the work on the layers (tensor parallelism).

    Fields:
        select: returns what is to be observed now; it is asked if the model's modules have changed.
        on_forward: called before each forward pass of a recorded step, with whether they have.
        on_layer: called for each layer that ran, and returns whether it is to be called for it
            again; None if nobody wants to know.
        number: of the forward pass under way.
        is_usual: whether outputs of ordinary calls are recorded as usual; False if it is not known.
        forward_passes, outputs, junctions: what tells the passes, reads outputs, finds additions.
        axes: the channel axis of each layer's output, as it was last seen.
        leaves_out: asked before that whether the step is to be left out, since it is captured.
    """

    def __init__(
        self,
        model: nn.Module,
        observed: Sequence[tuple[str, nn.Module, str]],
        layers: LayerTable,
        report: Callable[[str, str], None],
        *,
        every_pass: bool = False,
        every_mode: bool = False,
        every_output: bool = False,
        parts: int = 1,
    ) -> None:
        # The record that takes what runs now; None in a step that is not recorded, or while paused.
        self.record: StepRecord | None = None
        self._step_record: StepRecord | None = None
        self._pauses = 0
        self.is_usual = False
        self._model = model
        self._observed = observed
        self.select: Callable[[], Sequence[tuple[str, nn.Module, str]]] = lambda: self._observed
        self.on_forward: Callable[[bool], None] = lambda has_changed: None
        self.on_layer: Callable[[LayerRan], bool] | None = None
        self.axes: dict[str, int | None] = {}
        self.leaves_out: Callable[[], bool] = lambda: False
        self._structure = Structure(model)
        self._layer_hooks = ModuleHooks()
        self._layers = layers
        self.forward_passes = ForwardPasses(model, report, every_mode=every_mode)
        self._savepoint: Savepoint | None = None
        self._pending: PendingPass | None = None
        self.backward_passes = BackwardPasses(model, every_pass=every_pass)
        self._handles: list[RemovableHandle] = []
        self._rows = 0  # of layers, in the last recorded step
        self.number = 0
        self._calls = CallsOfModules()
        self._layouts = Layouts(parts)
        self._report = report
        self._reductions = Reductions()
        self.backward_passes.before_end = self._reductions.flush
        self.outputs = OutputReader(self.backward_passes, self._layouts, self._reductions)
        self.junctions = JunctionObserver(
            layers, self._current_record, self.backward_passes, self._layouts, self._reductions
        )
        self.unobserved = UnobservedLayers(model, lambda: self._observed, layers)
        self._recorder = LayerRecorder(self, layers, self._layouts, every_output=every_output)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The observed modules by name."""
        return {name: module for name, module, _ in self._observed}

    @property
    def names(self) -> list[str]:
        """The names of the observed modules."""
        return [name for name, _, _ in self._observed]

    @property
    def step_record(self) -> StepRecord | None:
        """The record of the step under way; None if it is not recorded."""
        return self._step_record

    @step_record.setter
    def step_record(self, record: StepRecord | None) -> None:
        self._step_record = record
        self.record = None if self._pauses else record
        self.is_usual = False

    @property
    def pauses(self) -> int:
        """How many contexts are entered in which nothing is recorded."""
        return self._pauses

    @pauses.setter
    def pauses(self, count: int) -> None:
        self._pauses = count
        self.record = None if count else self._step_record
        self.is_usual = False

    def find_out_whether_usual(self) -> bool:
        """Find out and return `is_usual`: nobody asks for more than moments in this pass."""
        record = self.record
        self.is_usual = (
            record is not None
            and not record.histograms
            and not self.outputs.is_shared
            and self.outputs.kept is None
            and self.forward_passes.is_ordinary()
        )
        return self.is_usual

    def keep_outputs(self, kept: KeepsOutputs | None) -> None:
        """Give `kept` the outputs that are differentiated from here on; None, to give nothing."""
        self.outputs.kept = kept
        self.is_usual = False

    def begin_step(self, record: StepRecord | None) -> None:
        """Fill `record` from here on; without one, the model has no hooks of ours."""
        self.step_record = record
        if record is None:
            self._remove_hooks()
        elif not self._handles:
            self._register_hooks()

    def leave_step(self) -> None:
        """Record nothing more of the step under way, nor what was recorded of it."""
        self.step_record = self._savepoint = None
        self.let_go_of_nodes()
        self.forget()

    def let_go_of_nodes(self) -> None:
        """Keep no node of autograd from one pass to the next.

        One that was made on the default stream must not run while a CUDA graph is captured: unless
        somebody keeps it, the captured forward pass makes a new one.
        """
        self.backward_passes.let_go_of_nodes()
        self.junctions.let_go_of_nodes()

    def _register_hooks(self) -> None:
        hook = partial(Hook, self)
        begins, ends = hook(self._forward_begins), hook(self._forward_ends)
        self._handles.append(self._model.register_forward_pre_hook(begins))
        self._put_hooks_on_modules()
        # Registered last: if the model is a single layer, its layer hook must run first.
        self._handles.append(self._model.register_forward_hook(ends))

    def _remove_hooks(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._layer_hooks.remove()
        self.junctions.detach()

    def detach(self) -> None:
        """Remove our hooks, and no others; the step under way is dropped."""
        self.begin_step(None)
        self._reductions.drop()
        self.end_step()

    def end_step(self) -> None:
        """Drop all data of the step; a forward pass that failed is taken out of the record."""
        self._reductions.flush()
        self._reductions.settle_doubts()
        if self._savepoint is not None:
            self._savepoint.restore()
            self._savepoint = None
        if self.step_record is not None:
            self.step_record.finish()
            self._look_for_hooks(len(self.step_record.activations))
        self._reductions.end_step()
        self.outputs.end_step()
        self._pending = None
        self.forward_passes.forget()
        self.backward_passes.forget()
        self.forget()
        if self._reductions.overwritten:
            name, *_ = self._reductions.overwritten
            self._reductions.overwritten.clear()
            self._report("overwritten", overwritten_message(name))

    def _look_for_hooks(self, rows: int) -> None:
        """Report hooks that other code has removed, if a step has fewer rows than the last one."""
        if rows < self._rows and (gone := self._layer_hooks.removed_by_others()):
            assert self.step_record is not None
            self._report("hooks", hooks_removed_message(self.step_record.step, gone))
        self._rows = rows

    def forget(self) -> None:
        """Drop all data of the forward pass that has just run."""
        self._reductions.flush()
        if self.step_record is not None:
            self.step_record.settle()
        self.number += 1
        self.is_usual = False
        self.outputs.forget()
        self._layouts.forget()
        self.junctions.forget()

    def _current_record(self) -> StepRecord | PendingPass | None:
        """Return the record that takes the running call, or None."""
        if self.forward_passes.is_ordinary():
            return self.record
        context = self.forward_passes.context()
        if context is None or not context.recorded or self.record is None:
            return None
        return self.record_of_pass(self.record)

    def record_of_pass(self, record: StepRecord) -> StepRecord | PendingPass:
        """Return what takes the forward pass under way: `record`, or what may become part of it."""
        if not self.forward_passes.must_be_differentiated:
            return record
        if self._pending is None:
            self._pending = PendingPass(record)
        return self._pending

    def _put_hooks_on_modules(self) -> None:
        hook, roles = partial(Hook, self), {name: role for name, _, role in self._observed}
        self._calls.keep_only(roles)

        def register(name: str, module: nn.Module) -> list[RemovableHandle]:
            calls = self._calls.of(name, module, roles[name])
            leaving = LayerHook(self, self._recorder.layer_returned, calls)
            return [module.register_forward_hook(leaving)]

        self._layer_hooks.keep_on(((name, one) for name, one, _ in self._observed), register)
        self.junctions.attach(self._model, hook)

    def ask_again(self) -> None:
        """Call `on_layer` for the next call of each layer, whether or not it was to be."""
        self._calls.ask_again()

    def begin_pass(self) -> None:
        """Begin a forward pass of which the parts of the model are called one by one.

        Nothing shows where it ends, so one that fails is not taken out of the record.
        """
        if self.record is not None and self.forward_passes.context() is not None:
            if self.leaves_out():
                self.leave_step()
            else:
                self._prepare_for_pass()

    def _prepare_for_pass(self) -> None:
        self._pending = None
        has_changed = self._structure.has_changed()
        if has_changed:
            self._observed = self.select()
            self._put_hooks_on_modules()
            self.ask_again()
        self.on_forward(has_changed)
        self.forget()

    def _forward_begins(self, *_: Any) -> None:
        self.is_usual = False
        self.forward_passes.is_trial = is_trial_pass()
        if in_backward() or self.forward_passes.context() is None or self.record is None:
            return
        if self._savepoint is not None:
            self._reductions.flush()
            self._savepoint.restore()
        if self.leaves_out():
            self.leave_step()
            return
        self._prepare_for_pass()
        # A pending pass adds nothing to the record until its backward pass: none is undone.
        is_pending = self.forward_passes.must_be_differentiated
        self._savepoint = None if is_pending else Savepoint(self.record)

    def _forward_ends(self, *_: Any) -> None:
        if self.forward_passes.is_trial:
            self.forward_passes.is_trial = False
            return
        if in_backward() or self.forward_passes.context() is None:
            return
        self._savepoint = self._pending = None
        # Otherwise the nodes would keep the graph's memory alive until the next forward pass.
        self.forget()
