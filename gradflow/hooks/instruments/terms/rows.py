"""What was measured of the terms in a step, and how it becomes rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.instruments.terms.products import Products
from gradflow.hooks.recording.records import Columns, StepRecord
from gradflow.hooks.reduction.moments import Moments
from gradflow.hooks.reduction.statistics.from_moments import to_statistics
from gradflow.runs.format.term_tables import (
    LAYER_KIND,
    MODEL_KIND,
    PARAMETER_KIND,
    TERM_PAIRS,
    TERMS,
    WHOLE_MODEL,
)

KEY = "terms"


@dataclass
class StepTerms:
    """What was measured of the terms in one step.

    Fields:
        names: of the terms, in the order in which they were given.
        values: by name, the values of the term in the step's passes.
        weights: the same of the weights that are known.
        layers, parameters: the products by place.
        precision: the largest relative spacing of the numbers of a gradient.
    """

    names: list[str] = field(default_factory=list)
    values: dict[str, list[Tensor | float]] = field(default_factory=dict)
    weights: dict[str, list[Tensor | float]] = field(default_factory=dict)
    layers: dict[str, Products] = field(default_factory=dict)
    parameters: dict[str, Products] = field(default_factory=dict)
    precision: float = 0.0


@dataclass(frozen=True)
class SumError:
    """How far the terms are from adding up to the loss.

    Fields:
        step, layer: where it is largest.
        error: the difference of the two norms, over the sum of the norms of the terms.
        allowed: how much of it may be rounding.
    """

    step: int
    layer: str
    error: float
    allowed: float


def of_terms(records: Sequence[StepRecord]) -> list[tuple[StepRecord, StepTerms]]:
    """Return the records of steps in which terms were measured."""
    return [(one, one.further[KEY]) for one in records if KEY in one.further]


def to_rows(records: Sequence[StepRecord]) -> tuple[dict[str, Columns], list[SumError]]:
    """Return the rows of `records` by table, and how well the terms of each step add up.

    Waits for the device.
    """
    terms: dict[str, list[Any]] = {one.name: [] for one in TERMS.columns}
    pairs: dict[str, list[Any]] = {one.name: [] for one in TERM_PAIRS.columns}
    errors: list[SumError] = []
    for record, found in of_terms(records):
        places = _places(found)
        matrices = _on_host([one for _, _, one in places])
        whole = _norms_of_the_loss(record)
        of_layers: list[tuple[float, str]] = []
        for (kind, place, products), matrix in zip(places, matrices, strict=True):
            norm = whole.get(place) if kind == LAYER_KIND else None
            error = None if norm is None else _sum_error(matrix, norm)
            if error is not None:
                of_layers.append((error, place))
            at = {"epoch": record.epoch, "step": record.step, "kind": kind, "place": place}
            is_model = kind == MODEL_KIND
            values, weights = (
                _means(given) if is_model else {} for given in (found.values, found.weights)
            )
            for row in _term_rows(found.names, products.known, matrix):
                name = row["term"]
                known = {"value": values.get(name), "weight": weights.get(name)}
                _append(terms, {**at, **row, **known, "sum_error": error})
            for row in _pair_rows(found.names, products.known, matrix):
                _append(pairs, {**at, **row})
        if of_layers:
            error, layer = max(of_layers)
            errors.append(SumError(record.step, layer, error, 2 * found.precision**0.5))
    tables = {"terms": terms, "term_pairs": pairs}
    return {name: _masked(name, rows) for name, rows in tables.items() if rows["step"]}, errors


def _places(found: StepTerms) -> list[tuple[str, str, Products]]:
    """The places with their kind, the model first; all products are of all terms of the step."""
    nothing = Products(torch.zeros(len(found.names), len(found.names)), [False] * len(found.names))
    of_parameters = {name: one + nothing for name, one in found.parameters.items()}
    places = [(LAYER_KIND, name, one + nothing) for name, one in found.layers.items()]
    places += [(PARAMETER_KIND, name, one) for name, one in of_parameters.items()]
    whole = nothing
    for one in of_parameters.values():
        whole = one + whole
    return [(MODEL_KIND, WHOLE_MODEL, whole), *places]


def _on_host(products: Sequence[Products]) -> list[np.ndarray]:
    """The matrices in float64, with one transfer a device."""
    found: list[np.ndarray] = [np.empty(0)] * len(products)
    by_device: dict[torch.device, list[int]] = {}
    for place, one in enumerate(products):
        by_device.setdefault(one.values.device, []).append(place)
    for places in by_device.values():
        values = torch.stack([products[place].values for place in places]).cpu().double().numpy()
        for place, matrix in zip(places, values, strict=True):
            found[place] = matrix
    return found


def _norms_of_the_loss(record: StepRecord) -> dict[str, float]:
    """The norms of the gradients that the loss sent back, by layer, without its scale."""
    seen = {name: one for name, one in record.gradients.items() if isinstance(one, Moments)}
    if not seen:
        return {}
    scale = 1.0 if record.scale is None else float(record.scale)
    norms = to_statistics(list(seen.values()))["norm"] / scale
    return dict(zip(seen, norms.tolist(), strict=True))


def _sum_error(matrix: np.ndarray, norm: float) -> float | None:
    """How far the norm of the sum is from `norm`, over the sum of the norms; None if it is 0.

    A loop may send each term back in a pass of its own: then the norm recorded is that of all
    passes together.
    """
    norms = np.sqrt(np.diag(matrix))
    if not norms.sum() > 0 or not np.isfinite(matrix).all() or not np.isfinite(norm):
        return None
    apart = abs(_norm_of_sum(matrix) - norm), abs(np.sqrt(np.trace(matrix)) - norm)
    return float(min(apart) / norms.sum())


def _norm_of_sum(matrix: np.ndarray) -> float:
    return float(np.sqrt(np.maximum(matrix.sum(), 0)))


def _means(given: Mapping[str, Sequence[Tensor | float]]) -> dict[str, float]:
    """The mean of each number over the passes of the step."""
    return {name: float(np.mean([float(one) for one in each])) for name, each in given.items()}


def _term_rows(
    names: Sequence[str], known: Sequence[bool], matrix: np.ndarray
) -> list[dict[str, Any]]:
    norms = np.sqrt(np.diag(matrix))
    total, square, among = norms.sum(), matrix.sum(), matrix.sum(1)
    return [
        {
            "term": name,
            "gradient_norm": norm if is_known else None,
            "share": norm / total if is_known and total != 0 else None,
            "contribution": along / square if is_known and square != 0 else None,
            "sum_norm": _norm_of_sum(matrix),
        }
        for name, is_known, norm, along in zip(names, known, norms, among, strict=True)
    ]


def _pair_rows(
    names: Sequence[str], known: Sequence[bool], matrix: np.ndarray
) -> list[dict[str, Any]]:
    norms = np.sqrt(np.diag(matrix))
    return [
        {
            "term": names[i],
            "other": names[j],
            "cosine": _ratio(matrix[i, j], norms[i] * norms[j]),
            "norm_ratio": _ratio(norms[i], norms[j]),
        }
        for i, j in combinations(range(len(names)), 2)
        if known[i] and known[j]
    ]


def _ratio(above: float, below: float) -> float | None:
    return None if below == 0 else above / below


def _append(columns: dict[str, list[Any]], row: Mapping[str, Any]) -> None:
    for name, values in columns.items():
        values.append(row[name])


def _masked(table: str, rows: Mapping[str, Sequence[Any]]) -> Columns:
    """Masked arrays, in which None is missing."""
    kinds = {one.name: one.dtype for one in (TERMS if table == "terms" else TERM_PAIRS).columns}
    found: Columns = {}
    for name, values in rows.items():
        mask = [value is None for value in values]
        kind: Any = object if kinds[name] == "str" else kinds[name]
        filled = [0 if value is None else value for value in values]
        found[name] = np.ma.array(np.array(filled, dtype=kind), mask=mask)
    return found
