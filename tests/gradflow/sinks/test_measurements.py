"""What a sink gets: every chosen value of the run, and nothing else."""

import math

import numpy as np
import pytest

from gradflow.sinks import Function
from gradflow.sinks.measurements import EpochEnds, Magnitudes, StepValues, measurements
from gradflow.sinks.names import Choice

TABLES = (
    ("activations", "rms", "activation_rms", "layer"),
    ("gradients", "norm", "gradient_norm", "layer"),
    ("gradient_histograms", "zeros", "gradient_zeros", "layer"),
    ("parameters", "update_to_weight", "parameter_update_to_weight", "parameter"),
    ("parameters", "gradient_norm", "parameter_gradient_norm", "parameter"),
    ("steps", "gradient_norm", "step_gradient_norm", ""),
    ("groups", "update_norm", "group_update_norm", "group"),
)


@pytest.mark.parametrize(("table", "column", "quantity", "row"), TABLES)
def test_a_sink_gets_what_the_run_folder_has(train, expected, table, column, quantity, row):
    got = {}
    sink = Function(
        lambda name, value, step: got.update({(name, step): value}), quantities=quantity
    )
    run, _ = train(sink, histograms=True, groups={"all": "*"})
    assert len(got) >= 6
    assert got == expected(run, table, column, quantity, row)


def test_epoch_scalars_come_under_the_last_step_and_text_is_left_out(train):
    got = []
    train(Function(lambda *one: got.append(one), quantities="epoch_*"))
    assert got == [("gradflow/epoch_train_loss", 0.0, 2), ("gradflow/epoch_train_loss", 1.0, 5)]


def test_every_epoch_gives_the_last_recorded_step_of_each(train, expected):
    got = {}
    sink = Function(
        lambda name, value, step: got.update({(name, step): value}),
        quantities=["gradient_norm", "step_gradient_norm"],
        every="epoch",
    )
    run, _ = train(sink)
    all_of = expected(run, "gradients", "norm", "gradient_norm")
    all_of |= expected(run, "steps", "gradient_norm", "step_gradient_norm", "")
    assert got == {key: value for key, value in all_of.items() if key[1] in (2, 5)}


def test_an_epoch_that_ends_gives_its_last_values_at_once():
    ends = EpochEnds()
    assert ends.add(StepValues(1, 0, {"a": 1.0})) == []
    assert ends.add(StepValues(1, 1, {"a": 2.0})) == []
    assert ends.add(StepValues(1, 1, {"epoch_loss": 3.0}, ends_epoch=True)) == [
        StepValues(1, 1, {"a": 2.0, "epoch_loss": 3.0})
    ]
    assert ends.rest() == []


def test_an_epoch_that_never_ends_gives_its_last_values_at_the_end():
    ends = EpochEnds()
    assert ends.add(StepValues(1, 0, {"a": 1.0, "b": 1.0})) == []
    assert ends.add(StepValues(1, 1, {"a": 2.0})) == []
    assert ends.add(StepValues(2, 2, {"a": 3.0})) == [
        StepValues(1, 0, {"b": 1.0}),
        StepValues(1, 1, {"a": 2.0}),
    ]
    assert ends.rest() == [StepValues(2, 2, {"a": 3.0})]
    assert ends.rest() == []


def test_missing_values_are_left_out_and_nan_is_one():
    columns = {
        "epoch": np.ma.array([1, 1, 1]),
        "step": np.ma.array([0, 0, 0]),
        "layer": np.ma.array(["a", "b", "c"], dtype=object),
        "norm": np.ma.array([1.0, math.nan, 5.0], mask=[False, False, True]),
    }
    (found,) = measurements({"gradients": columns}, Choice("gradient_norm"))
    assert list(found.scalars) == ["gradient_norm/a", "gradient_norm/b"]
    assert math.isnan(found.scalars["gradient_norm/b"])


def test_magnitudes_keep_their_powers_of_two():
    columns = {
        "epoch": np.ma.array([1, 1]),
        "step": np.ma.array([4, 4]),
        "layer": np.ma.array(["a", "empty"], dtype=object),
        "lowest_exponent": np.ma.array([-3, 0], mask=[False, True]),
        "counts": np.ma.array([[5, 0, 2], []], dtype=object),
    }
    (found,) = measurements({"activation_histograms": columns}, Choice("activation_magnitudes"))
    assert found.histograms == {"activation_magnitudes/a": Magnitudes(-3, (5, 0, 2))}
    assert Magnitudes(-3, (5, 0, 2)).edges == [-3, -2, -1, 0]


@pytest.mark.parametrize(
    ("value", "written"), [(True, 1.0), (10**400, math.inf), (np.float32(0.5), 0.5)]
)
def test_scalars_of_an_epoch_may_be_any_number(value, written):
    row = {"epoch": [1], "step": [9], "own": [value], "none": [None]}
    (found,) = measurements({"epochs": row}, Choice("epoch_*"))
    assert found == StepValues(1, 9, {"epoch_own": written}, ends_epoch=True)
