"""The explorer in Chromium, opened from a file, offline."""

import importlib.util
import re
import sys
from base64 import b64encode
from hashlib import sha256
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from markupsafe import escape

from gradflow.runs.format.schema import ACTIVATIONS
from gradflow.runs.reading.run import Experiment, open_experiment
from gradflow.runs.writing.run import ExperimentWriter, RunWriter
from reports.document.builder import build_document
from reports.html.renderer import render_html

SOURCE = Path(__file__).parents[3] / "benchmarks" / "recorded_experiment.py"
SPEC = importlib.util.spec_from_file_location("recorded_experiment_in_browser", SOURCE)
recorded_experiment = importlib.util.module_from_spec(SPEC)
sys.modules["recorded_experiment_in_browser"] = recorded_experiment
SPEC.loader.exec_module(recorded_experiment)

PLAIN, RESIDUAL = "<b>plain</b> datum['x'].\"y\"", "resnet{{7*7}}"
DRAWN = "#explorer-body[aria-busy=false]"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Experiment:
    folder = tmp_path_factory.mktemp("explored") / "trial"
    recorded_experiment.record(
        folder, [PLAIN, RESIDUAL], [1, 2, 3], recorded_experiment.Size(layers=6, epochs=4, steps=3)
    )
    return open_experiment(folder)


@pytest.fixture(scope="module")
def page_file(experiment, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_bytes(render_html(build_document(experiment, ())))
    return path


@pytest.fixture
def page(open_page, page_file):
    page = open_page(page_file, viewport={"width": 1280, "height": 1000})
    page.wait_for_selector(DRAWN)
    return page


def value_of(
    experiment: Experiment, network: str, layer: str, epoch: int, seed: int | None = None,
    table: str = "gradients", quantity: str = "rms",
) -> float:  # fmt: skip
    """The median over seeds of the medians over steps, from the recorded tables."""
    medians = []
    for run in experiment.of_network(network):
        if seed is None or run.seed == seed:
            frame = run.table(table)
            key = "parameter" if table == "parameters" else "layer"
            rows = frame[(frame[key] == layer) & (frame["epoch"] == epoch)]
            medians.append(np.median(rows[quantity].to_numpy()))
    return float(np.median(medians))


def read_out(page) -> dict[str, float]:
    """The values of the chosen layer in the chosen epoch, by network."""
    texts = page.locator("#explorer-readout .explorer-value").all_inner_texts()
    return {name: float(value) for name, _, value in (text.rpartition(": ") for text in texts)}


def pixels(page, place: str) -> str:
    """The image of the canvas at `place`."""
    return page.locator(f"{place} canvas").first.evaluate("canvas => canvas.toDataURL()")


def test_heat_maps_of_both_networks_are_drawn(page):
    canvases = page.locator("#explorer-maps canvas")
    assert canvases.count() == 2
    colours = canvases.first.evaluate(
        """canvas => {
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          const found = new Set();
          for (let i = 0; i < data.length; i += 4) found.add(data.slice(i, i + 3).join());
          return found.size;
        }"""
    )
    assert colours > 20
    assert page.locator("#explorer-maps h3").all_inner_texts() == [PLAIN, RESIDUAL]


def test_pointer_reads_the_recorded_value_of_the_cell_in_both_networks(page, experiment):
    page.locator("#explorer-maps canvas").nth(1).hover(position={"x": 150, "y": 60})
    tip = page.locator("#explorer-tip")
    assert tip.is_visible()
    lines = tip.inner_text().splitlines()
    layer, epoch = lines[0], int(lines[2].removeprefix("epoch "))
    assert layer in recorded_experiment.layer_names(6)
    assert lines[1].startswith("Conv2d, 64x16x16, depth ")
    assert lines[3] == "rms (unit of x)"
    for line, network in zip(lines[4:], (PLAIN, RESIDUAL), strict=True):
        name, _, value = line.rpartition(": ")
        assert name == network
        expected = value_of(experiment, network, layer, epoch)
        assert float(value) == pytest.approx(expected, rel=6e-3)


def test_click_on_a_cell_shows_its_layer_and_epoch(page, experiment):
    history, profile = pixels(page, "#explorer-history"), pixels(page, "#explorer-profile")
    maps = pixels(page, "#explorer-maps")
    page.locator("#explorer-maps canvas").first.click(position={"x": 150, "y": 60})
    page.wait_for_selector(DRAWN)
    layer = page.locator("#explorer-layer").input_value()
    epoch = int(page.locator("#explorer-epoch").input_value()) + 1
    assert (layer, epoch) != ("stage0.conv0", 4)
    assert page.locator("#explorer-history-title").inner_text() == f"History of {layer}"
    assert page.locator("#explorer-profile-title").inner_text() == f"Profile of epoch {epoch}"
    assert pixels(page, "#explorer-history") != history
    assert pixels(page, "#explorer-profile") != profile
    assert pixels(page, "#explorer-maps") != maps
    for network, value in read_out(page).items():
        assert value == pytest.approx(value_of(experiment, network, layer, epoch), rel=6e-3)


def test_keyboard_alone_chooses_layer_and_epoch(page, experiment):
    history = pixels(page, "#explorer-history")
    page.locator("#explorer-scale").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "explorer-layer"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "explorer-epoch"
    page.keyboard.press("Home")
    page.wait_for_selector(DRAWN)
    assert page.locator("#explorer-epoch").get_attribute("aria-valuetext") == "epoch 1"
    assert pixels(page, "#explorer-history") != history
    found = read_out(page)
    assert list(found) == [PLAIN, RESIDUAL]
    for network, value in found.items():
        assert value == pytest.approx(value_of(experiment, network, "stage0.conv2", 1), rel=6e-3)


def test_quantity_and_seed_change_the_values(page, experiment):
    page.locator("#explorer-quantity").select_option("parameters.update_to_weight")
    page.locator("#explorer-seed").select_option("seed 2")
    page.wait_for_selector(DRAWN)
    for network, value in read_out(page).items():
        expected = value_of(
            experiment, network, "stage0.conv0.weight", 4, 2, "parameters", "update_to_weight"
        )
        assert value == pytest.approx(expected, rel=6e-3)
    assert page.locator("#explorer-scale").input_value() == "log"


def test_quantity_with_both_signs_is_coloured_from_zero(page):
    page.locator("#explorer-quantity").select_option("activations.mean")
    page.wait_for_selector(DRAWN)
    assert "Orange is above 0, blue below" in page.locator("#explorer-formula").inner_text()
    assert page.locator("#explorer-zero").is_hidden()


def test_network_without_residual_additions_says_so(page):
    page.locator("#explorer-quantity").select_option("junctions.skip_share")
    page.wait_for_selector(DRAWN)
    assert "Nothing of this kind was recorded here." in page.locator("#explorer-maps").inner_text()
    assert page.locator("#explorer-maps canvas").count() == 1
    page.locator("#explorer-network").select_option(RESIDUAL)
    page.wait_for_selector(DRAWN)
    assert page.locator("#explorer-maps h3:visible").all_inner_texts() == [RESIDUAL]


def test_layers_with_other_names_are_matched_by_depth(open_page, tmp_path):
    folder = tmp_path / "trial"
    ExperimentWriter(folder, {"created": "2025-05-03T14:05:09+00:00", "runs": ["one", "two"]})
    for run, layers, first in (("one", ["a", "b", "c"], 1), ("two", ["p", "q"], 10)):
        writer = RunWriter(folder / run, {"network": run})
        same = {"type": "Linear", "role": "linear", "shape": "8", "stage": 0, "parameters": 8}
        columns = {name: [value] * len(layers) for name, value in same.items()}
        depths = range(1, len(layers) + 1)
        writer.write_layers({"layer": layers, "depth": depths, **columns})
        values = {quantity.name: [0] * len(layers) for quantity in ACTIVATIONS.columns}
        values |= {"epoch": [1] * len(layers), "layer": layers}
        values["rms"] = [float(first * depth) for depth in depths]
        writer.append("activations", values, 0, 0)
    path = tmp_path / "report.html"
    path.write_bytes(render_html(build_document(open_experiment(folder), ())))
    page = open_page(path)
    values = page.locator("#explorer-readout .explorer-value")
    for layer, texts in (("b", ["one: 2", "two: 20 (q)"]), ("c", ["one: 3", "two: no such layer"])):
        page.locator("#explorer-layer").select_option(layer)
        page.wait_for_selector(DRAWN)
        assert values.all_inner_texts() == texts


def test_single_epoch_of_a_single_network_can_be_read(open_page, tmp_path):
    recorded_experiment.record(
        tmp_path / "run", ["alone"], [5], recorded_experiment.Size(layers=3, epochs=1, steps=1)
    )
    path = tmp_path / "report.html"
    path.write_bytes(render_html(build_document(open_experiment(tmp_path / "run"), ())))
    page = open_page(path)
    page.wait_for_selector(DRAWN)
    chosen = [
        page.locator(f"#explorer-{name} option:checked").inner_text()
        for name in ("quantity", "network", "seed", "layer")
    ]
    assert chosen == ["gradients: rms", "alone", "seed 5", "1: stage0.conv0 (Conv2d)"]
    assert page.locator("#explorer canvas").count() == 3


def test_address_brings_the_same_view_back(page, browser, page_file):
    page.locator("#explorer-quantity").select_option("activations.std")
    page.locator("#explorer-layer").select_option("stage0.conv3")
    page.locator("#explorer-epoch").fill("1")
    page.wait_for_selector(DRAWN)
    context = browser.new_context(offline=True)
    again = context.new_page()
    again.goto(page_file.resolve().as_uri() + page.evaluate("location.hash"))
    again.wait_for_selector(DRAWN)
    assert again.locator("#explorer-quantity").input_value() == "activations.std"
    readouts = [one.locator("#explorer-readout").inner_text() for one in (page, again)]
    assert readouts[0] == readouts[1]
    assert "stage0.conv3 (Conv2d, 64x16x16, depth 4), epoch 2" in readouts[0]
    context.close()


def test_names_are_text_and_never_markup(page):
    assert page.locator("#explorer b, #explorer-body script").count() == 0
    options = page.locator("#explorer-network option").all_inner_texts()
    assert options == ["all, side by side", PLAIN, RESIDUAL]


def policy_of(text: str) -> str:
    return unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])


def test_policy_allows_neither_eval_nor_foreign_scripts(page_file):
    policy = policy_of(page_file.read_text(encoding="utf-8"))
    scripts = re.search(r"script-src ([^;]*);", policy)[1].split()
    assert len(scripts) >= 2
    assert all(re.fullmatch(r"'sha256-[\w+/=]+'", source) for source in scripts)


def test_charts_put_no_style_of_their_own_into_the_page(open_page, page_file, tmp_path):
    text = page_file.read_text(encoding="utf-8")
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = policy_of(text)
    strict = re.sub(r"style-src [^;]*;", f"style-src 'sha256-{digest}';", policy)
    path = tmp_path / "strict.html"
    path.write_text(text.replace(str(escape(policy)), strict), encoding="utf-8")
    assert f'"{strict}"' in path.read_text(encoding="utf-8")
    page = open_page(path)
    page.wait_for_selector(DRAWN)
    page.locator("#explorer-maps canvas").first.click(position={"x": 150, "y": 60})
    page.locator("#explorer-maps canvas").first.hover(position={"x": 150, "y": 60})
    assert page.locator("#explorer-tip").is_visible()
    assert page.locator("style").count() == 1


def test_narrow_dark_page_stacks_the_heat_maps(open_page, page_file):
    page = open_page(page_file, viewport={"width": 400, "height": 900}, color_scheme="dark")
    page.wait_for_selector(DRAWN)
    first, second = (
        page.locator("#explorer-maps canvas").nth(place).bounding_box() for place in (0, 1)
    )
    assert second["y"] > first["y"] + first["height"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_page_without_scripts_says_what_is_missing(browser, page_file):
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(page_file.resolve().as_uri())
    assert "needs scripts" in page.locator("#explorer").inner_text()
    assert not page.locator("#explorer-body").is_visible()
    context.close()
