"""How runs and experiments show themselves: short, with a picture, and never with an error."""

import re
from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

import gradflow
from gradflow.runs.format.schema import TABLES
from gradflow.runs.reading import cards
from gradflow.runs.writing.run import ExperimentWriter, RunWriter


def words(content: str) -> str:
    return re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>", "", content))


def heat_map(content: str) -> np.ndarray:
    (first, *_) = re.findall(r"data:image/png;base64,([^\"]*)", content)
    return np.asarray(Image.open(BytesIO(b64decode(first))))


def record(folder, epochs=2, steps=3, layers=("stem", "body", "head"), **description):
    """Gradients whose norm is ten to the place of their layer, at every step alike."""
    writer = RunWriter(folder, {"network": "small", "seed": 7, **description})
    writer.write_layers(
        {
            "layer": list(layers), "type": ["Linear"] * len(layers),
            "depth": list(range(1, len(layers) + 1)), "stage": [0] * len(layers),
            "role": ["linear"] * len(layers), "shape": ["4"] * len(layers),
            "parameters": [4] * len(layers),
        }
    )  # fmt: skip
    places = [(step, place) for step in range(epochs * steps) for place in range(len(layers))]
    known = {
        "epoch": [step // steps + 1 for step, _ in places],
        "step": [step for step, _ in places],
        "layer": [layers[place] for _, place in places],
        "norm": [10.0 ** (place % 9) for _, place in places],
    }
    rest = {one.name: [1] * len(places) for one in TABLES["gradients"].columns}
    writer.append("gradients", rest | known, 0, epochs * steps - 1)
    for epoch in range(1, epochs + 1):
        last = epoch * steps - 1
        scalars = {"train_loss": [1 / epoch], "val_accuracy": [epoch / 10]}
        writer.append("epochs", {"epoch": [epoch], "step": [last], **scalars}, last, last)
    writer.close("complete")
    return gradflow.open_run(folder)


def test_run_shows_its_facts_and_its_last_epoch(tmp_path):
    run = record(tmp_path / "mine")
    shown = words(run._repr_html_())
    facts = ("Run mine", "network small", "seed 7", "status complete", "2 epochs")
    ends = ("stem", "head", "step 0", "step 5")
    for said in (*facts, *ends, "train_loss 0.5", "val_accuracy 0.2"):
        assert said in shown
    assert repr(run) == f"Run({str(tmp_path / 'mine')!r}, network 'small', seed 7)"


def test_picture_has_a_row_a_layer_in_order_and_a_column_a_step(tmp_path):
    shown = heat_map(record(tmp_path / "mine")._repr_html_())
    assert shown.shape == (3, 6, 3)
    # Viridis grows brighter with the norm.
    brightness = shown.sum(axis=2)
    assert (np.diff(brightness, axis=0) > 0).all()
    assert (brightness == brightness[:, :1]).all()


def test_picture_of_many_layers_and_steps_stays_small(tmp_path):
    layers = [f"layer{place}" for place in range(99)]
    content = record(tmp_path / "mine", 10, 20, layers)._repr_html_()
    assert heat_map(content).shape == (40, 80, 3)
    assert len(content) < 20_000


def test_gradients_that_are_too_many_are_not_read(tmp_path, monkeypatch):
    run = record(tmp_path / "mine")
    monkeypatch.setattr(cards, "_LARGEST_READ", 10)
    shown = words(run._repr_html_())
    assert "too many to be drawn" in shown
    assert "val_accuracy" in shown


def test_run_without_gradients_or_epochs_says_so(tmp_path):
    RunWriter(tmp_path / "bare", {"network": "small"}).close("complete")
    assert "No gradients of layers were recorded" in words(
        gradflow.open_run(tmp_path / "bare")._repr_html_()
    )


@pytest.mark.parametrize("table", ["gradients", "epochs"])
def test_damaged_run_says_what_is_damaged(table, tmp_path):
    run = record(tmp_path / "mine")
    part = next((tmp_path / "mine" / table).glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-8])
    assert f"{part.name} is damaged" in words(run._repr_html_())


def test_run_that_was_removed_says_so(tmp_path):
    run = record(tmp_path / "mine")
    (tmp_path / "mine").rename(tmp_path / "away")
    assert "no longer there" in words(run._repr_html_())


def test_showing_a_run_does_not_keep_its_tables_of_now(tmp_path):
    run = record(tmp_path / "mine")
    run._repr_html_()
    with RunWriter.reopen(tmp_path / "mine") as writer:
        writer.append("epochs", {"epoch": [3], "step": [8], "train_loss": [0.1]}, 8, 8)
    assert list(run.epochs["epoch"]) == [1, 2, 3]


def test_names_are_escaped(tmp_path):
    run = record(tmp_path / "mine", layers=("<i>stem", "a&b"), network="<script>x</script>")
    content = run._repr_html_()
    assert "<script" not in content
    assert "<i>" not in content
    assert "&lt;i&gt;stem" in content


@pytest.fixture
def experiment(tmp_path):
    names = ["plain-seed1", "resnet-seed1", "resnet-seed2"]
    ExperimentWriter(tmp_path / "trial", {"runs": names})
    for name in names:
        network, _, seed = name.partition("-seed")
        record(tmp_path / "trial" / name, network=network, seed=int(seed))
    return gradflow.open_experiment(tmp_path / "trial")


def test_experiment_shows_a_row_and_a_curve_for_each_run(experiment):
    content = experiment._repr_html_()
    assert content.count("<polyline") == 3
    assert content.count("<tr>") == 4
    shown = words(content)
    for said in ("Experiment trial: 3 runs", "val_accuracy by epoch", "resnet-seed2", "complete"):
        assert said in shown
    assert repr(experiment).endswith("trial', 3 runs of plain, resnet)")


def test_runs_of_a_network_share_a_colour(experiment):
    plain, *resnet = re.findall(r'stroke="(#\w+)"', experiment._repr_html_())
    assert resnet[0] == resnet[1] != plain


def test_experiment_with_a_damaged_run_shows_the_others(experiment):
    part = next((experiment.runs[0].folder / "epochs").glob("*.parquet"))
    part.write_bytes(b"")
    content = experiment._repr_html_()
    assert content.count("<polyline") == 2
    assert content.count("<tr>") == 4
    assert words(content).count("damaged") == 1


def test_scalar_that_is_a_text_in_another_run_is_drawn_where_it_is_a_number(tmp_path):
    ExperimentWriter(tmp_path / "trial", {"runs": ["a", "b"]})
    for name, values in {"a": [0.1, 0.2], "b": ["high", "low"]}.items():
        writer = RunWriter(tmp_path / "trial" / name, {"network": name})
        writer.append("epochs", {"epoch": [1, 2], "step": [0, 1], "score": values}, 0, 1)
        writer.close("complete")
    content = gradflow.open_experiment(tmp_path / "trial")._repr_html_()
    assert content.count("<polyline") == 1
    assert "low" in words(content)


def test_experiment_without_scalars_has_no_curves(tmp_path):
    RunWriter(tmp_path / "bare", {"network": "small"}).close("complete")
    content = gradflow.open_experiment(tmp_path / "bare")._repr_html_()
    assert "<polyline" not in content
    assert "Experiment bare: 1 run" in words(content)
