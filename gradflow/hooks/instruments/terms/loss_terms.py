"""Measures in some of the recorded steps what each term of the loss asks of layers and parameters.

For each term there is one further backward pass, by `torch.autograd.grad` (`unseen`). Of the
gradients only the inner products are kept, which hold all norms and cosines.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.nn.parameter import is_lazy

from gradflow.errors import TracingError
from gradflow.hooks.compilation import is_capturing
from gradflow.hooks.instruments.instrument import Instrument
from gradflow.hooks.instruments.terms.due import DueSteps
from gradflow.hooks.instruments.terms.outputs import KeptOutputs
from gradflow.hooks.instruments.terms.products import products_of
from gradflow.hooks.instruments.terms.rows import KEY, StepTerms, SumError, of_terms, to_rows
from gradflow.hooks.instruments.terms.unseen import unseen
from gradflow.hooks.options import RecordingOptions
from gradflow.hooks.recording.records import Columns, StepRecord
from gradflow.hooks.wrappers import named_parameters

Number = Tensor | float
# A term as it is added up, or its weight and the term without it.
Terms = Mapping[str, Number | tuple[Number, Number]]
# Takes a kind, a message and, if there is one, the error that led to it.
Report = Callable[..., None]
_Gradients = tuple[Tensor | None, ...]


class LossTerms(Instrument):
    """The instrument behind `Tracer.terms`.

    Args:
        model: whose parameters are meant.
        options: those of the tracer.
        report: says once that something is not recorded.
        processes: how many processes train the model.

    Fields:
        keep: told, as a step begins, what takes the outputs of layers in it; None, if nothing does.
        aside: returns a context in which the tracer notices no passes.
        scale: returns the factor that the loss will be scaled by, or None.
    """

    key = KEY
    several_processes = True  # it says so itself, once terms are given

    def __init__(
        self, model: nn.Module, options: RecordingOptions, report: Report, processes: int = 1
    ) -> None:
        self.keep: Callable[[KeptOutputs | None], None] = lambda kept: None
        self.aside: Callable[[], AbstractContextManager[Any]] | None = None
        self.scale: Callable[[], Tensor | float | None] = lambda: None
        self._model = model
        self._report = report
        self._refusal = _refusal(options, processes)
        self._due = DueSteps(options.terms)
        self._outputs = KeptOutputs()
        self._record: StepRecord | None = None
        self._gradients: dict[str, list[Tensor | None]] = {}
        self._names: list[str] = []
        self._steps = 0
        self._worst: SumError | None = None

    def begin_step(self, record: StepRecord | None) -> None:
        """Have the outputs of layers kept in a step that is due."""
        self._let_go()
        if record is None:
            self._due.begin_unrecorded()
        elif self._refusal is None and self._due.begin(record.step, counts=record.wanted):
            self._record = record
            self.keep(self._outputs)

    def end_step(self, record: StepRecord) -> None:
        """Let go of the graph."""
        if self._outputs.are_hidden and record.further.pop(KEY, None) is not None:
            self._report("terms", _hidden_message(record.step))
        self._due.end()
        self._let_go()

    def detach(self) -> None:
        """Let go of the graph."""
        self._let_go()

    def give(self, terms: Terms) -> None:
        """Take the terms of a loss, before its backward pass; measure them if the step is due.

        Raises `TracingError` unless they are single numbers by name.
        """
        _require_terms(terms)
        if self._refusal is not None:
            self._report("terms", self._refusal)
            return
        self._due.note_call()
        record = self._record
        if record is None or record.closed or is_capturing():
            return
        try:
            self._measure(record, *_weighted(terms))
        except Exception as error:  # whatever it is, the training goes on
            record.further.pop(KEY, None)
            self._report("terms", _failed_message(record.step, error), error)
        self._due.note_measured()

    def columns(self, records: Sequence[StepRecord]) -> Mapping[str, Columns]:
        """Return the rows; say so if the terms do not add up to the loss."""
        if not any(KEY in one.further for one in records):
            return {}
        self._note_measured(records)
        tables, errors = to_rows(records)
        for one in errors:
            if self._worst is None or one.error > self._worst.error:
                self._worst = one
        wrong = next((one for one in errors if one.error > one.allowed), None)
        if wrong is not None:
            self._report("sum of the terms", _wrong_sum_message(wrong))
        return tables

    def summary(self) -> Mapping[str, Any]:
        """Return the terms, the number of steps, and how well they add up to the loss."""
        if not self._steps:
            return {}
        entry: dict[str, Any] = {"names": self._names, "steps": self._steps}
        if self._worst is not None:
            entry["largest_sum_error"] = {
                "step": self._worst.step,
                "layer": self._worst.layer,
                "error": self._worst.error,
            }
        return {KEY: entry}

    def state_dict(self) -> dict[str, Any]:
        """Return when the terms are due next, and what the summary says of those measured."""
        worst = self._worst
        return {
            "due": self._due.state_dict(),
            "names": list(self._names),
            "steps": self._steps,
            "worst": None
            if worst is None
            else [worst.step, worst.layer, worst.error, worst.allowed],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        if state:
            self._due.load_state_dict(state["due"])
            self._names, self._steps = list(state["names"]), state["steps"]
            self._worst = None if state["worst"] is None else SumError(*state["worst"])

    def _note_measured(self, records: Sequence[StepRecord]) -> None:
        for _, found in of_terms(records):
            self._steps += 1
            self._names += [name for name in found.names if name not in self._names]

    def _let_go(self) -> None:
        if self._record is not None:
            self._record = None
            self.keep(None)
            self._outputs.clear()
            self._gradients = {}

    def _measure(
        self, record: StepRecord, terms: Mapping[str, Number], weights: Mapping[str, Number]
    ) -> None:
        found: StepTerms = record.further.get(KEY) or StepTerms()
        found.names += [name for name in terms if name not in found.names]
        differentiable = {
            name: term
            for name, term in terms.items()
            if isinstance(term, Tensor) and term.requires_grad
        }
        if any(map(is_functorch_wrapped_tensor, differentiable.values())):
            raise TracingError("they were computed within a transform of torch.func")
        for name, term in terms.items():
            found.values.setdefault(name, []).append(_value(term))
        for name, weight in weights.items():
            found.weights.setdefault(name, []).append(_value(weight))
        aside = self.aside
        assert aside is not None
        with aside(), unseen(self._model, self._outputs.entries, differentiable.values()):
            self._add_products(found, differentiable)
        record.further[KEY] = found

    def _add_products(self, found: StepTerms, terms: Mapping[str, Tensor]) -> None:
        parameters = {
            name: one
            for name, one in named_parameters(self._model)
            if one.requires_grad and not is_lazy(one)
        }
        outputs = self._outputs.entries
        inputs = [*parameters.values(), *(one.edge for one in outputs)]
        scale = self.scale()
        by_term = {
            name: _gradients(term, inputs, scale) if inputs else () for name, term in terms.items()
        }
        factor = scale if isinstance(scale, Tensor) or scale is None else torch.tensor(scale)

        def at(place: int) -> list[Tensor | None]:
            return [by_term[name][place] if name in by_term else None for name in found.names]

        for place, output in enumerate(outputs, len(parameters)):
            products = products_of(at(place), factor)
            if products is not None:
                for layer in output.shared_by.layers:
                    before = found.layers.get(layer)
                    found.layers[layer] = products if before is None else before + products
        for place, name in enumerate(parameters):
            self._gradients[name] = _added(self._gradients.get(name, []), at(place))
            products = products_of(self._gradients[name], factor)
            if products is not None:
                found.parameters[name] = products
        kinds = {
            one.dtype for gradients in by_term.values() for one in gradients if one is not None
        }
        found.precision = max(
            [found.precision, torch.finfo(torch.float32).eps, *(torch.finfo(k).eps for k in kinds)]
        )


def _gradients(term: Tensor, inputs: Sequence[Any], scale: Tensor | float | None) -> _Gradients:
    """The gradients of a term times `scale`, in which small ones do not underflow."""
    start = torch.ones_like(term)
    if scale is not None:
        start = start * (scale.to(start) if isinstance(scale, Tensor) else scale)
    found: _Gradients = torch.autograd.grad(
        term, inputs, start, retain_graph=True, allow_unused=True
    )
    return found


def _added(before: list[Tensor | None], now: list[Tensor | None]) -> list[Tensor | None]:
    """The gradients of this pass of the step and of those before."""
    before = before + [None] * (len(now) - len(before))
    return [
        one if other is None else other if one is None else one + other
        for one, other in zip(before, now, strict=True)
    ]


def _weighted(terms: Terms) -> tuple[dict[str, Number], dict[str, Number]]:
    """The terms as they are added up, and the weights of those that came with one."""
    pairs = {name: given for name, given in terms.items() if isinstance(given, tuple)}
    with torch.enable_grad():
        whole = {
            name: given[0] * given[1] if isinstance(given, tuple) else given
            for name, given in terms.items()
        }
    return whole, {name: weight for name, (weight, _) in pairs.items()}


def _value(number: Number) -> Number:
    if isinstance(number, Tensor):
        return number.detach().reshape(()).clone()
    return float(number)


def _require_terms(terms: Any) -> None:
    if not isinstance(terms, Mapping) or not terms:
        raise TracingError(
            f"the terms are {terms!r:.80}: give them by name, as they are added up, such as "
            '{"data": data_loss, "physics": 0.1 * residual}'
        )
    for name, given in terms.items():
        parts = given if isinstance(given, tuple) and len(given) == 2 else (given,)
        if not isinstance(name, str) or not all(map(_is_number, parts)):
            found = f"a tensor of shape {list(given.shape)}" if isinstance(given, Tensor) else given
            raise TracingError(
                f"the term {name!r:.80} is {found!s:.80}: a term has a name and is a single real "
                "number, such as criterion(model(inputs), targets), or a weight and such a number"
            )


def _is_number(given: Any) -> bool:
    if isinstance(given, Tensor):
        return given.numel() == 1 and not given.is_complex()
    return isinstance(given, (int, float)) and not isinstance(given, bool)


def _refusal(options: RecordingOptions, processes: int) -> str | None:
    if processes > 1:
        return "the terms of the loss are not recorded if several processes train the model"
    if options.runs_compiled:
        return 'the terms of the loss are not recorded with compiled="in-graph"'
    return None


def _failed_message(step: int, error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    if "backward through the graph a second time" in text:
        text = "call Tracer.terms before the backward pass, which lets go of the graph"
    return f"the terms of the loss were not measured in step {step}: {text}"


def _hidden_message(step: int) -> str:
    return (
        f"the terms of the loss were not measured in step {step}: a checkpointed segment hides its "
        "layers from all backward passes but that of the loss. Give `checkpoint` "
        "use_reentrant=False"
    )


def _wrong_sum_message(wrong: SumError) -> str:
    return (
        f"the terms given to Tracer.terms do not add up to the loss: in step {wrong.step} the norm "
        f"of the sum of their gradients at layer {wrong.layer} is {100 * wrong.error:.2g} % off. "
        "Give all terms, with their weights, as they are added up; a hook that changes gradients "
        "on their way does the same"
    )
