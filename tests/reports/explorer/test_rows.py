"""The rows of the explorer match the layers, parameters and additions of a run."""

import pandas as pd

from gradflow.runs.reading.run import Run
from reports.explorer.rows import junction_rows, layer_rows, parameter_rows, shown_layers


def run_with(layers: pd.DataFrame, **tables: pd.DataFrame) -> Run:
    empty = {"activations": pd.DataFrame({"layer": []}), "gradients": pd.DataFrame({"layer": []})}
    return Run("folder", {}, {"layers": layers, **empty, **tables})


def layers_of(**columns) -> pd.DataFrame:
    frame = pd.DataFrame(columns)
    return frame.assign(type="T", shape="1", **{"role": columns.get("role", "other")})


LAYERS = layers_of(layer=["pool", "conv", "bn", "relu", "conv#2", "fc"], depth=[0, 1, 1, 1, 2, 3])


def test_layers_of_one_depth_have_separate_ordered_positions():
    rows = layer_rows(run_with(LAYERS))
    assert list(rows["position"]) == [0, 1, 1 + 1 / 3, 1 + 2 / 3, 2, 3]


def test_gradients_alone_give_the_layers_from_input_to_output():
    run = run_with(LAYERS.head(0), gradients=pd.DataFrame({"layer": ["out", "in", "out", "in"]}))
    assert list(layer_rows(run)["layer"]) == ["in", "out"]


def test_main_parameter_is_the_weight_or_else_the_first():
    names = ["fc.bias", "fc.weight", "conv.scale", "conv.bias", "token", "conv.scale"]
    run = run_with(LAYERS, parameters=pd.DataFrame({"parameter": names}))
    rows = parameter_rows(run, layer_rows(run))
    assert list(rows.index) == ["conv.scale", "fc.weight", "token"]
    assert list(rows["layer"]) == ["conv", "fc", "(model)"]
    assert list(rows["depth"].fillna(-1)) == [1, 3, -1]


def test_second_addition_of_a_layer_has_its_depth():
    names = ["conv#2+2", "conv#2", "conv"]
    run = run_with(LAYERS, junctions=pd.DataFrame({"layer": names}))
    rows = junction_rows(run, layer_rows(run))
    assert sorted(rows.index) == sorted(names)
    assert rows["depth"].to_dict() == {"conv#2+2": 2, "conv#2": 2, "conv": 1}


def test_layers_with_weights_are_left_out_last():
    roles = ["convolution", "normalization", "activation", "linear"]
    rows = layer_rows(run_with(layers_of(layer=list("abcd"), depth=[1, 1, 1, 2], role=roles)))
    assert list(shown_layers(rows, 4).index) == list("abcd")
    assert list(shown_layers(rows, 3).index) == ["a", "b", "d"]
    assert list(shown_layers(rows, 2).index) == ["a", "d"]
    assert list(shown_layers(rows, 1).index) == ["a"]
