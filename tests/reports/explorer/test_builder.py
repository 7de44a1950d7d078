"""The explorer's values, compared with medians computed one cell at a time."""

import importlib.util
import json
import statistics
import sys
from math import inf, isnan, nan
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import gradflow
from gradflow.runs.format.schema import ACTIVATIONS, TABLES
from gradflow.runs.reading.run import Run, open_experiment
from gradflow.runs.writing.run import RunWriter
from reports.explorer.builder import MOST_BINS, MOST_CHARACTERS, build_explorer
from reports.explorer.compact_numbers import PackedNumbers

SOURCE = Path(__file__).parents[3] / "benchmarks" / "recorded_experiment.py"
UNPACKER = Path(__file__).parent / "test_compact_numbers.py"


def load(name: str, path: Path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


recorded_experiment = load("recorded_experiment", SOURCE)
unpack = load("compact_numbers_tests", UNPACKER).unpack


def values_in(explorer, table: str, quantity: str) -> dict[tuple[str, str, str, int], float]:
    """Values of `quantity` by network, seed, row and index of the bin."""
    data = json.loads(explorer.data)
    group = next(group for group in data["groups"] if group["key"] == table)
    about = next(one for one in group["quantities"] if one["name"] == quantity)
    numbers = iter(unpack(PackedNumbers(about["low"], about["step"], about["codes"])))
    found = {}
    for run in data["runs"]:
        for row in data["rows"][group["rows"]][run["network"]]["name"]:
            for place in range(len(data["bins"])):
                network = data["networks"][run["network"]]
                found[network, run["seed"], row, place] = next(numbers)
    assert next(numbers, None) is None
    return found


def recorded(run: Run, table: str, quantity: str, row: str, epochs: range) -> list[float]:
    """The values that `run` recorded in `row` and `epochs`."""
    key = TABLES[table].keys[2].name
    frame = run.table(table)
    return [
        value
        for epoch, name, value in zip(frame["epoch"], frame[key], frame[quantity], strict=True)
        if name == row and epoch in epochs
    ]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explored") / "trial"
    recorded_experiment.record(
        folder, ["plain", "resnet"], [1, 2], recorded_experiment.Size(layers=5, epochs=7, steps=3)
    )
    return open_experiment(folder)


@pytest.mark.parametrize(
    ("table", "quantity"),
    [
        ("gradients", "rms"),
        ("activations", "mean"),
        ("parameters", "update_to_weight"),
        ("junctions", "skip_share"),
    ],
)
@pytest.mark.parametrize("most_bins", [100, 3])
def test_values_are_medians_over_the_steps_of_each_bin(experiment, table, quantity, most_bins):
    explorer = build_explorer(experiment, most_bins=most_bins)
    bins = json.loads(explorer.data)["bins"]
    runs = {(run.network, f"seed {run.seed}"): run for run in experiment.runs}
    values = values_in(explorer, table, quantity)
    checked = 0
    for (network, seed, row, place), value in values.items():
        epochs = range(bins[place][0], bins[place][1] + 1)
        steps = recorded(runs[network, seed], table, quantity, row, epochs)
        assert len(steps) == 3 * len(epochs)
        assert value == pytest.approx(statistics.median(steps), rel=6e-4)
        checked += 1
    assert checked >= 2 * 2 * len(bins)


def test_epochs_are_merged_into_bins_and_a_note_says_so(experiment):
    explorer = build_explorer(experiment, most_bins=3)
    assert json.loads(explorer.data)["bins"] == [[1, 3], [4, 6], [7, 7]]
    assert "The 7 recorded epochs are shown in 3 columns of up to 3 epochs each." in explorer.notes


def size_of(explorer) -> int:
    groups = json.loads(explorer.data)["groups"]
    return sum(len(one["codes"]) for group in groups for one in group["quantities"])


def test_data_stay_within_their_character_limit(experiment):
    small = build_explorer(experiment, most_characters=5000)
    assert size_of(build_explorer(experiment)) > 5000 >= size_of(small)
    assert 1 < len(json.loads(small.data)["bins"]) < 7


def test_defaults_leave_room_for_the_rest_of_the_page():
    assert MOST_BINS <= 100
    assert MOST_CHARACTERS < 4_000_000


def test_same_runs_give_the_same_bytes(experiment):
    again = open_experiment(experiment.folder)
    assert build_explorer(again) == build_explorer(experiment)


def write(folder: Path, values: dict[str, list[float | None]], layers: list[str], **columns):
    """A run whose activations have `values` in their columns and 0 in all others."""
    rows = len(layers)
    writer = RunWriter(folder, {"created": "2025-05-03T14:05:09+00:00"})
    table = {quantity.name: [0] * rows for quantity in ACTIVATIONS.columns}
    table |= {"epoch": [1] * rows, "step": range(rows), "layer": layers, **values, **columns}
    writer.append("activations", table, 0, rows - 1)
    writer.close("complete")
    return open_experiment(folder)


def test_missing_and_nonfinite_values_are_distinguished(tmp_path):
    layers = ["missing", "infinite", "nan", "half", "zero", "mostly"]
    layers += ["half", "mostly", "mostly"]
    values = [None, inf, nan, 2.0, 0.0, 3.0, None, inf, 3.5]
    bad = [0, 1, 1, 0, 0, 0, 0, 1, 0]
    experiment = write(tmp_path / "run", {"rms": values, "nonfinite": bad}, layers)
    found = values_in(build_explorer(experiment), "activations", "rms")
    found = {row: value for (_, _, row, _), value in found.items()}
    assert isnan(found["missing"])
    assert found["infinite"] == found["nan"] == inf
    assert found["half"] == pytest.approx(2, rel=6e-4)
    assert found["zero"] == 0
    # 3, 3.5 and inf
    assert found["mostly"] == pytest.approx(3.5, rel=6e-4)


def test_rare_elements_that_are_not_finite_are_counted_by_their_largest(tmp_path):
    experiment = write(tmp_path / "run", {"nonfinite": [0, 0, 0, 7]}, ["a"] * 4)
    found = values_in(build_explorer(experiment), "activations", "nonfinite")
    assert list(found.values()) == [pytest.approx(7, rel=6e-4)]


def test_large_network_shows_its_layers_with_weights(tmp_path):
    folder = tmp_path / "run"
    names = [f"l{place}" for place in range(260)]
    rows = pd.DataFrame({"layer": names})
    write(folder, {"rms": [1.0] * 260}, names)
    roles = ["convolution" if place % 2 else "normalization" for place in range(260)]
    columns = {"type": ["T"] * 260, "depth": [place // 2 + 1 for place in range(260)]}
    columns |= {"stage": [0] * 260, "role": roles, "shape": ["1"] * 260, "parameters": [1] * 260}
    with RunWriter.reopen(folder) as writer:
        writer.write_layers({**rows.to_dict("list"), **columns})
    explorer = build_explorer(open_experiment(folder))
    shown = json.loads(explorer.data)["rows"]["layers"][0]
    assert shown["layer"] == names[1::2]
    assert "run has 260 layers; 130 are shown, those with weights first." in explorer.notes


def test_layers_without_a_layer_table_are_shown_in_order(tmp_path):
    experiment = write(tmp_path / "run", {"rms": [1.0, 2.0, 3.0]}, ["in", "mid", "out"])
    rows = json.loads(build_explorer(experiment).data)["rows"]["layers"][0]
    assert rows["layer"] == ["in", "mid", "out"]
    assert rows["depth"] == [1, 2, 3]


def test_without_recorded_layers_there_is_no_explorer(tmp_path):
    RunWriter(tmp_path / "run", {}).close("complete")
    assert build_explorer(open_experiment(tmp_path / "run")) is None


def test_plain_tracer_run_of_three_layers_can_be_explored(tmp_path):
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for _ in range(2):
            model(torch.ones(3, 4)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    explorer = build_explorer(open_experiment(tmp_path / "run"))
    data = json.loads(explorer.data)
    assert data["rows"]["layers"][0]["layer"] == ["0", "1", "2"]
    assert data["rows"]["parameters"][0]["name"] == ["0.weight", "2.weight"]
    assert data["rows"]["parameters"][0]["layer"] == ["0", "2"]
    assert [run["seed"] for run in data["runs"]] == ["seed not recorded"]
    assert {group["key"] for group in data["groups"]} == {"gradients", "activations", "parameters"}
