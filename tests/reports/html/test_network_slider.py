"""The network drawing in a browser: slider, arrows, and the page without scripts."""

import json
import re

import pytest
from axe_core_python.sync_playwright import Axe

from analyses.gradients.network_drawing import question
from analyses.registry import run_one
from gradflow.runs.format.schema import TABLES
from gradflow.runs.reading.run import open_experiment
from gradflow.runs.writing.run import ExperimentWriter, RunWriter
from reports.document.builder import build_document
from reports.html.inline_svg import inline_svg
from reports.html.renderer import render_html

HOSTILE = 'net"><script>alert(1)</script> $x$ & --> ]]>'
BLOCKS = ("first", "second", "third")
NORMS = {1: (4.0, 3.0, 2.0, 1.0), 2: (3.0, 2.0, 1.5, 1.0), 3: (0.5, 0.75, 1.25, 1.0)}
SKIPS = {1: 0.25, 2: 0.5, 3: 0.9}
PARTS = {
    "skip_type": "identity", "gradient_norm": 1.0, "skip_branch_cosine": 0.0, "cancellation": 0.0,
    "residual_error": 0.0, "skip_variance": 1.0, "branch_variance": 1.0,
}  # fmt: skip

STATISTICS = dict.fromkeys((one.name for one in TABLES["gradients"].quantities), 0)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A residual network with known norms; its name is chosen to break the page."""
    folder = tmp_path_factory.mktemp("drawn")
    ExperimentWriter(folder, {"created": "2025-05-03T14:05:09+00:00", "runs": ["one"]})
    description = {"network": HOSTILE, "seed": 1, "created": "2025-05-03T14:05:09+00:00"}
    writer = RunWriter(folder / "one", description)
    layers = ["stem", *BLOCKS]
    writer.write_layers(
        {
            "layer": layers, "type": ["Conv2d", *["Block"] * 3], "depth": [1, 2, 3, 4],
            "stage": [0] * 4, "role": ["convolution", *["block"] * 3], "shape": ["4x8x8"] * 4,
            "parameters": [1] * 4,
        }
    )  # fmt: skip
    gradients, junctions = [], []
    for epoch, norms in NORMS.items():
        common = {"epoch": epoch, "step": epoch}
        gradients += [
            common | STATISTICS | {"layer": layer, "batch_size": 4, "norm": norm}
            for layer, norm in zip(layers, norms, strict=True)
        ]
        junctions += [
            common | PARTS | {
                "layer": block, "input_gradient_norm": norm, "skip_share": 0.5,
                "skip_gradient_norm": SKIPS[epoch], "branch_gradient_norm": 0.4,
            }
            for block, norm in zip(BLOCKS, norms, strict=False)
        ]  # fmt: skip
    for name, rows in (("gradients", gradients), ("junctions", junctions)):
        writer.append(name, {key: [row[key] for row in rows] for key in rows[0]}, 0, 3)
    writer.close("complete")
    experiment = open_experiment(folder)
    outcome = run_one(question.ANALYSIS, experiment)
    assert outcome.failure == ""
    return build_document(experiment, [outcome])


@pytest.fixture
def path(drawn, tmp_path):
    path = tmp_path / "report.html"
    path.write_bytes(render_html(drawn))
    return path


def widths(page):
    """The current width of every line that the slider changes, by gid."""
    return page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll('.slider .arrow')].map(
            (arrow) => [arrow.id.replace(/^figure-1-/, ''),
                        Number(arrow.querySelector('path:not(.target)').getAttribute('stroke-width'))]
        ))"""
    )


def point_at(page, gid):
    head = page.locator(f"#figure-1-{gid}-head")
    head.scroll_into_view_if_needed()
    box = head.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def test_the_slider_moves_by_keyboard_and_sets_every_width(open_page, path, drawn):
    page = open_page(path, viewport={"width": 1000, "height": 900})
    slider = drawn.sections[0].figures[0].slider
    handle = page.get_by_role("slider", name="epoch", exact=True)
    handle.focus()
    for place, key in ((2, ""), (1, "ArrowLeft"), (0, "Home"), (2, "End")):
        if key:
            page.keyboard.press(key)
        assert page.locator(".slider output").inner_text() == slider.positions[place]
        shown = widths(page)
        assert shown == pytest.approx({gid: wide[place] for gid, wide in slider.widths.items()})
        # The skip's recorded norm, relative to the norm at the last block's output, which is 1.
        assert shown["n0-skip0"] / shown["n0-trunk3"] == pytest.approx(SKIPS[place + 1], rel=2e-3)
        assert f"{NORMS[place + 1][0]:.3g}" in page.locator("#figure-1-n0-stage0").text_content()
        assert handle.get_attribute("aria-valuetext") == f"epoch {place + 1}"


def test_heads_grow_and_shrink_with_their_lines(open_page, path):
    page = open_page(path, viewport={"width": 1000, "height": 900})
    head = page.locator("#figure-1-n0-skip0-head")
    before = head.bounding_box()["width"]
    page.get_by_role("slider", name="epoch", exact=True).focus()
    page.keyboard.press("Home")
    assert head.bounding_box()["width"] < 0.9 * before


def test_pointing_at_an_arrow_reads_its_name_and_value(open_page, path):
    page = open_page(path, viewport={"width": 1000, "height": 900})
    said = page.locator(".slider .said")
    point_at(page, "n0-skip1")
    assert said.inner_text() == f"{HOSTILE}: second, skip: 0.9\u00d7 (norm 0.9)"
    page.get_by_role("slider", name="epoch", exact=True).focus()
    page.keyboard.press("Home")
    assert said.inner_text() == f"{HOSTILE}: second, skip: 0.25\u00d7 (norm 0.25)"


def test_arrow_keys_go_from_arrow_to_arrow_after_one_stop_of_the_tab_key(open_page, path):
    page = open_page(path, viewport={"width": 1000, "height": 900})
    page.get_by_role("slider", name="epoch", exact=True).focus()
    page.keyboard.press("Tab")
    said = page.locator(".slider .said")
    assert said.inner_text().startswith(f"{HOSTILE}: stem, output: 0.5")
    page.keyboard.press("ArrowDown")
    assert said.inner_text().startswith(f"{HOSTILE}: first, output: 0.75")
    page.keyboard.press("End")
    assert said.inner_text().startswith(f"{HOSTILE}: third, skip: 0.9")
    assert page.locator(".slider [tabindex='0']").count() == 1


def test_axe_finds_nothing_serious_in_the_drawing(open_page, path):
    page = open_page(path, viewport={"width": 1000, "height": 900})
    found = Axe().run(page, context=".slider")["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []


def test_without_scripts_the_drawing_of_the_last_epoch_stands_and_no_slider(open_page, path, drawn):
    page = open_page(path, java_script_enabled=False)
    assert page.locator(".slider svg").is_visible()
    assert not page.locator(".slider input").is_visible()
    content = page.content()
    slider = drawn.sections[0].figures[0].slider
    assert f'stroke-width="{slider.widths["n0-skip0"][2]:g}' in content


def test_a_script_that_is_not_ours_does_not_run_beside_the_slider(browser, path):
    page = browser.new_page()
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(path.as_uri())
    page.evaluate(
        """() => {
            const script = document.createElement('script');
            script.textContent = 'document.title = "taken"';
            document.body.append(script);
        }"""
    )
    assert page.title() != "taken"
    assert any("Content Security Policy" in text for text in complaints)
    page.close()


def test_ids_are_unique_and_every_reference_has_a_target(drawn):
    page = render_html(drawn).decode()
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)
    # Vega's script, which is not part of the drawing, contains all of these.
    page = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "url(" not in page
    assert not re.search(r"<svg[^>]*>.*?(<style| style=|<script).*?</svg>", page, re.DOTALL)


def test_names_that_break_pages_are_escaped_in_drawing_and_data(drawn):
    page = render_html(drawn).decode()
    assert "<script>alert(1)" not in page
    block = re.search(r'id="figure-1-data">(.*?)</script>', page, re.DOTALL)
    data = json.loads(block[1])
    assert data["names"]["n0-skip0"] == f"{HOSTILE}: first, skip"


def test_a_png_is_refused(drawn):
    figure = drawn.sections[0].figures[0]
    pixels = type(figure.picture)(b"", "png", 1.0, 1.0)
    with pytest.raises(ValueError, match="type png cannot be put inline into the page"):
        inline_svg(pixels, figure.slider, "figure-1")


def test_the_page_is_reproducible(drawn):
    assert render_html(drawn) == render_html(drawn)
