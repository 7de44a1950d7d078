"""What `view.js` draws, in a real browser, from a model like that of anywidget."""

import base64
import json
from contextlib import contextmanager
from importlib.resources import files
from itertools import pairwise

import numpy as np
import pytest

from gradflow.sinks.notebook.screen import State
from gradflow.sinks.notebook.widget import BLOCKS, WidgetScreen, encoded

HERE = files("gradflow.sinks.notebook")
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>view</title>
<style>{css}</style>
<body><main id="el"></main><script type="module">
const values = {values}, listeners = new Map();
const take = (sent) => {{
  for (const [key, value] of Object.entries(sent))
    values[key] = key.startsWith("block")
      ? new DataView(Uint8Array.from(atob(value), (one) => one.charCodeAt(0)).buffer) : value;
}};
take(values);
const model = {{
  get: (key) => values[key],
  on: (event, call) => listeners.set(event, call),
  off: (event, call) => listeners.get(event) === call && listeners.delete(event),
}};
window.send = (sent) => {{ take(sent); listeners.get("change:revision")(); }};
window.listening = () => listeners.size;
const {{ default: widget }} = await import("data:text/javascript;base64,{esm}");
window.close_view = widget.render({{ model, el: document.getElementById("el") }});
document.body.dataset.ready = "";
</script></body></html>"""
YELLOW, PURPLE, GREY, VERMILION = (253, 231, 37), (68, 1, 84), (136, 136, 136), (213, 94, 0)


class Traits:
    """Holds what the screen sends, as a widget does; what has changed is taken by `sent`."""

    def __init__(self, state):
        self.quantity, self.row = state.quantity, state.row
        self.every, self.chosen = state.every, state.curve
        self.revision = 0
        for place in range(BLOCKS):
            setattr(self, f"block{place}", b"")

    @contextmanager
    def hold_sync(self):
        yield

    def __setattr__(self, name, value):
        self.__dict__.setdefault("changed", set()).add(name)
        self.__dict__[name] = value

    def sent(self):
        names, self.__dict__["changed"] = self.__dict__["changed"], set()
        return {name: self._plain(self.__dict__[name]) for name in sorted(names)}

    def _plain(self, value):
        return base64.b64encode(value).decode() if isinstance(value, bytes) else value


class View:
    """A state with the screen that shows it."""

    def __init__(self, every="step", curve=""):
        self.state = State("activation_rms", "layer", every, curve)
        self.screen = WidgetScreen()
        self.screen.widget = Traits(self.state)

    def add(self, moment, epoch, values):
        self.state.history.add(moment, epoch, values)
        self.state.moment, self.state.epoch = moment, epoch

    def sent(self):
        self.screen.renew(self.state)
        return self.screen.widget.sent()


@pytest.fixture
def show(open_page, tmp_path):
    def shown(view, **options):
        path = tmp_path / "view.html"
        code = base64.b64encode((HERE / "view.js").read_bytes()).decode()
        css = (HERE / "view.css").read_text(encoding="utf-8")
        path.write_text(
            PAGE.format(css=css, values=json.dumps(view.sent()), esm=code),
            encoding="utf-8",
        )
        page = open_page(path, **options)
        page.wait_for_selector("[data-ready]")
        return page

    return shown


def pixels(page):
    """The colours of the heat map, shape [rows, columns, 4]."""
    width, height, data = page.evaluate(
        """() => { const one = document.querySelector("canvas"); return [one.width, one.height,
        [...one.getContext("2d").getImageData(0, 0, one.width, one.height).data]]; }"""
    )
    return np.array(data).reshape(height, width, 4)


def texts(page):
    return page.locator("svg text").all_text_contents()


def four_layers():
    view = View()
    for step in range(3):
        view.add(
            10 * step,
            1 + step // 2,
            {
                "": 4.0,
                "first": 1e-3,
                "second": 1e-1,
                "third": 0.0 if step else 1e-3,
                "<img src=x onerror=alert(1)>": np.nan if step == 2 else 1e-1,
            },
        )
    view.state.points.add("train_loss", 10, 2.5)
    view.state.points.add("val_loss", 20, 1.5)
    view.state.points.add("val_accuracy", 20, 0.75)
    return view


def test_numbers_are_colours_and_names_are_text(show):
    page = show(four_layers())
    got = pixels(page)
    assert got.shape == (4, 3, 4)
    assert (got[0, :, :3] == PURPLE).all()
    assert (got[1, :, :3] == YELLOW).all()
    assert [tuple(one) for one in got[2, :, :3]] == [PURPLE, GREY, GREY]
    assert [tuple(one) for one in got[3, :, :3]] == [YELLOW, YELLOW, VERMILION]
    assert page.inner_text(".when") == "step 20, epoch 2"
    said = page.inner_text(".worst")
    assert said == "worst layer <img src=x onerror=alert(1)>: not finite"
    shown = texts(page)
    assert {"first", "second", "third", "0.001", "0.1", "zero", "not finite"} <= {*shown}
    assert {"activation_rms", "train_loss 2.5", "val_loss 1.5", "epoch 2"} <= {*shown}
    label = page.get_attribute("canvas", "aria-label")
    assert label == f"activation_rms of 4 layers by step; {said}"


def test_other_curves_can_be_chosen_and_stay_chosen(show):
    view = four_layers()
    page = show(view)
    assert page.locator("select option").all_inner_texts() == ["loss", "accuracy", "gradient norm"]
    assert page.input_value("select") == "loss"
    page.select_option("select", "gradient norm")
    assert "gradient norm 4" in texts(page)
    view.add(30, 2, {"first": 1.0})
    page.evaluate("sent => window.send(sent)", view.sent())
    page.wait_for_function("document.querySelector('.when').textContent.startsWith('step 30')")
    assert page.input_value("select") == "gradient norm"


def test_up_to_four_curves_of_a_kind_share_axes(show):
    view = four_layers()
    for name in ("test_loss", "l1_loss", "l2_loss"):
        view.state.points.add(name, 20, 0.5)
    page = show(view)
    options = page.locator("select option").all_inner_texts()
    assert options == ["loss", "accuracy", "l2_loss", "gradient norm"]
    assert {"train_loss 2.5", "val_loss 1.5", "test_loss 0.5", "l1_loss 0.5"} <= {*texts(page)}
    colours = page.locator("svg circle").evaluate_all(
        "all => all.map((one) => getComputedStyle(one).stroke)"
    )
    assert len({*colours}) == 4


def test_the_curve_that_is_asked_for_is_shown_first(show):
    view = four_layers()
    view.screen.widget.chosen = "val_accuracy"
    assert show(view).input_value("select") == "accuracy"


def test_the_view_waits_grows_and_ends(show):
    view = View()
    page = show(view)
    assert page.inner_text(".when") == "waiting for the first recorded steps"
    assert page.locator("canvas").is_hidden()
    for step in range(40):
        view.add(step, 1, {"": 1.0, "a": 1.0, "b": 10.0})
    page.evaluate("sent => window.send(sent)", view.sent())
    page.wait_for_function("document.querySelector('canvas').width === 40")
    for step in range(40, 500):
        view.add(step, 1, {"": 1.0, "a": 1.0, "b": 10.0})
    view.state.ended = True
    page.evaluate("sent => window.send(sent)", view.sent())
    page.wait_for_function("document.querySelector('canvas').width === 125")
    got = pixels(page)
    assert (got[0, :, :3] == PURPLE).all()
    assert (got[1, :, :3] == YELLOW).all()
    assert page.inner_text(".when") == "step 499, epoch 1, ended"
    page.evaluate("window.close_view()")
    assert page.evaluate("window.listening()") == 0


def test_only_the_columns_that_have_changed_are_sent():
    view = View()
    blocks = []
    for step in range(400):
        view.add(step, 1, {"a": 1.0 + step})
        blocks.append(sum(name.startswith("block") for name in view.sent()))
        # What was sent before and now is all there is.
        history, widget = view.state.history, view.screen.widget
        held = b"".join(getattr(widget, f"block{place}") for place in range(BLOCKS))
        assert held == encoded(history.means(0, len(history.columns)))
    # All of them at the start, and when pairs are merged, at steps 192 and 384.
    assert {step for step, count in enumerate(blocks) if count > 2} == {0, 192, 384}
    assert {count for step, count in enumerate(blocks) if step not in (0, 192, 384)} <= {1, 2}


@pytest.mark.parametrize("rows", [300, 2000])
def test_many_rows_stay_legible_and_are_named_where_the_pointer_is(show, rows):
    view = View(every="epoch")
    for epoch in range(1, 9):
        values = {f"encoder.layer{row}.attention.query": 1.0 + row for row in range(rows)}
        values["encoder.layer155.attention.query"] = 0.0
        view.add(epoch, epoch, values)
    page = show(view, viewport={"width": 800, "height": 700})
    boxes = [one.bounding_box() for one in page.locator("svg text", has_text="query").all()]
    assert 20 < len(boxes) < 40
    boxes.sort(key=lambda one: one["y"])
    for above, below in pairwise(boxes):
        assert above["y"] + above["height"] <= below["y"] + 2
    left = page.locator("canvas").bounding_box()["x"]
    assert all(one["x"] + one["width"] <= left for one in boxes)
    assert min(one["x"] for one in boxes) > page.locator(".gradflow-view").bounding_box()["x"]
    assert "▸" in "".join(texts(page))
    # A row of zeros is seen, even where several rows share a pixel.
    got = pixels(page)
    assert got.shape[0] == min(rows, 420)
    assert (got[:, 0, :3] == GREY).all(axis=1).sum() == 1
    canvas = page.locator("canvas").bounding_box()
    row = 10 * rows // 300
    page.mouse.move(canvas["x"] + 1, canvas["y"] + (row + 0.5) * canvas["height"] / rows)
    assert page.inner_text(".tip").splitlines() == [
        f"encoder.layer{row}.attention.query",
        f"{row + 1}, epoch 1",
    ]
    page.mouse.move(1, 1)
    assert page.locator(".tip").is_hidden()


# What notebooks say on an element around the view, what the system prefers, and what it then is.
THEMES = (
    ({}, "light", False),
    ({}, "dark", True),
    ({"data-jp-theme-light": "false"}, "light", True),
    ({"data-jp-theme-light": "true"}, "dark", False),
    ({"class": "vscode-dark"}, "light", True),
    ({"class": "vscode-light"}, "dark", False),
    ({"class": "vscode-high-contrast"}, "light", True),
    ({"class": "vscode-high-contrast vscode-high-contrast-light"}, "dark", False),
)


def test_it_is_light_or_dark_as_the_notebook_is(show):
    view = four_layers()
    for name in ("test_loss", "l1_loss"):
        view.state.points.add(name, 20, 0.5)
    page = show(view)
    for said, system, is_dark in THEMES:
        page.emulate_media(color_scheme=system)
        ground, *inks = page.evaluate(
            """(said) => {
              const { body } = document;
              for (const one of ["class", "data-jp-theme-light"]) body.removeAttribute(one);
              for (const [key, value] of Object.entries(said)) body.setAttribute(key, value);
              const view = document.querySelector(".gradflow-view");
              const inks = [...view.querySelectorAll(".when, .worst b, select, svg text")];
              return [getComputedStyle(view).backgroundColor, ...inks.map((one) =>
                getComputedStyle(one)[one.namespaceURI.endsWith("svg") ? "fill" : "color"])];
            }""",
            said,
        )
        assert (luminance(ground) < 0.1) == is_dark, (said, system)
        # WCAG 2.2, 1.4.3.
        assert min(contrast(ground, ink) for ink in inks) >= 4.5, (said, system)


def luminance(colour):
    """Relative luminance of `rgb(r, g, b)`: WCAG 2.2."""
    parts = np.array([int(part) for part in colour[4:-1].split(",")]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
