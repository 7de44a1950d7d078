"""What alerts say of one, of two and of many."""

import numpy as np
import pytest

from gradflow.hooks.alerts.rule import Batch, Layers
from gradflow.hooks.alerts.units import Dead, NonFinite
from gradflow.hooks.alerts.updates import Disconnected, Extremes, NotUpdated, Stalled
from gradflow.runs.format.update_tables import NO_OPTIMIZER

STEPS = range(24)


def layers(count, role="activation"):
    names = [f"layer{one}" for one in range(count)]
    return Layers(
        names, ["Linear"] * count, [role] * count, ["8"] * count, [0] * count,
        list(range(count)), [1] * count,
    )  # fmt: skip


def table(names, key, **columns):
    """Columns of a table with one row for each step and name, all alike."""
    count = len(STEPS) * len(names)
    filled = {name: np.full(count, value) for name, value in columns.items()}
    return {
        "step": np.ma.array(np.repeat(STEPS, len(names))),
        key: np.ma.array(list(names) * len(STEPS), dtype=object),
        **{name: np.ma.array(column) for name, column in filled.items()},
    }


def said(rule, table_name, rows, known):
    batch = Batch({table_name: rows}, list(STEPS), frozenset(), known)
    seen = rule.look(batch)[-1]
    assert seen.ill
    return seen.said


@pytest.mark.parametrize(("count", "end"), [
    (1, "since step 0"),
    (2, "since step 0; most channels of 1 further layer are too"),
    (3, "since step 0; most channels of 2 further layers are too"),
    (12, "since step 0; most channels of 11 further layers are too"),
])  # fmt: skip
def test_dead_units(count, end):
    known = layers(count)
    rows = table(known.layer, "layer", dead_channels=8.0)
    told = said(Dead(), "activations", rows, known)
    assert told == f"8 of 8 channels of layer0 are 0 on every input {end}"


@pytest.mark.parametrize(("count", "words"), [
    (1, ""),
    (2, ", and so does 1 further weight"),
    (12, ", and so do 11 further weights"),
])  # fmt: skip
def test_weights_that_hardly_move(count, words):
    known = layers(count, "linear")
    rows = table(
        [f"{one}.weight" for one in known.layer], "parameter", update_to_weight=1e-9,
        update_norm=1e-9, weight_norm=1.0, gradient_norm=1.0, optimizer="SGD",
    )  # fmt: skip
    told = said(Stalled(), "parameters", rows, known)
    end = f"its update is 1e-09 of its norm in a step{words}"
    assert told == f"layer0.weight hardly moves since step 0: {end}"


def parameters(ill, optimizer, gradient):
    """Rows of `ill` parameters with this optimizer and gradient, and of two that are well."""
    names = [*(f"layer{one}.weight" for one in range(ill)), "well.weight", "well.bias"]
    rows = table(names, "parameter", update_norm=0.0)
    own = np.array([name.startswith("layer") for name in rows["parameter"].data])
    rows["optimizer"] = np.ma.array(np.where(own, optimizer, "SGD").astype(object))
    # A gradient that is not there is masked: nan is one that is not a number.
    rows["gradient_norm"] = np.ma.array(
        np.where(own, 1.0 if gradient is None else gradient, 1.0),
        mask=own & (gradient is None),
    )
    rows["backward_gradient_norm"] = rows["gradient_norm"]
    rows["update_norm"] = np.ma.array(np.where(own, 0.0, 1.0))
    return rows


@pytest.mark.parametrize(("ill", "disconnected", "not_updated"), [
    (
        1,
        "no gradient has reached 1 of 3 trained parameters (layer0.weight), though its layer runs",
        "1 of 3 trained parameters (layer0.weight) has a gradient, but no optimizer given to the "
        "tracer has it",
    ),
    (
        2,
        "no gradient has reached 2 of 4 trained parameters (layer0.weight and layer1.weight), "
        "though their layers run",
        "2 of 4 trained parameters (layer0.weight and layer1.weight) have gradients, but no "
        "optimizer given to the tracer has them",
    ),
    (
        9,
        "no gradient has reached 9 of 11 trained parameters (layer0.weight to layer8.weight), "
        "though their layers run",
        "9 of 11 trained parameters (layer0.weight to layer8.weight) have gradients, but no "
        "optimizer given to the tracer has them",
    ),
])  # fmt: skip
def test_parameters_that_are_left_out(ill, disconnected, not_updated):
    known = layers(ill, "linear")
    rows = parameters(ill, "SGD", None)
    assert said(Disconnected(Extremes()), "parameters", rows, known) == disconnected
    rows = parameters(ill, NO_OPTIMIZER, 1.0)
    assert said(NotUpdated(Extremes()), "parameters", rows, known) == not_updated


@pytest.mark.parametrize(("count", "words"), [(1, "1 value is not"), (2, "2 values are not")])
def test_values_that_are_not_finite(monkeypatch, count, words):
    found = {"direction": "forward", "count": count, "step": 3, "layer": "a"}
    monkeypatch.setattr(
        "gradflow.hooks.alerts.units.first_nonfinite", lambda tables, skipped: found
    )
    told = said(NonFinite(), "steps", {}, layers(1))
    assert told.startswith(f"{words} finite in step 3, in the output of a (forward pass)")


def test_a_gradient_that_is_not_a_number_is_not_told_as_none():
    rows = {"parameters": parameters(2, "SGD", np.nan)}
    batch = Batch(rows, list(STEPS), frozenset(), layers(2, "linear"))
    assert not Disconnected(Extremes()).look(batch)[-1].ill
