"""Layouts that are kept: pictures stay what matplotlib draws without them, byte by byte."""

from contextlib import nullcontext

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from analyses.result import Figure as Shown
from analyses.showing import text_layouts
from analyses.showing.drawing import draw
from analyses.showing.text_layouts import layouts_kept


@pytest.fixture(autouse=True)
def _nothing_is_kept():
    text_layouts._kept.clear()


def full_of_texts() -> Figure:
    """Texts that differ in one thing each, twice each at other places."""
    figure = Figure(figsize=(5, 4), layout="constrained")
    for axes in figure.subplots(1, 2):
        axes.plot([0, 20], [1, 1e5])
        axes.set_yscale("log")
        axes.set(xlabel="two\nlines", ylabel="layer")
        axes.tick_params(axis="x", labelrotation=30)
        for place, options in enumerate(
            (
                {},
                {"fontsize": 6},
                {"rotation": 90},
                {"ha": "right"},
                {"va": "top"},
                {"weight": "bold"},
                {"rotation": 30, "rotation_mode": "anchor"},
                {"rotation": 30, "rotation_mode": "default"},
                {"multialignment": "right"},
                {"linespacing": 2},
                {"parse_math": False},
                {"wrap": True},
                {"rotation": 30, "transform_rotates_text": True},
            )
        ):
            axes.text(10, 10 ** (place / 3), "$x^2$ of a layer\nbelow", **options)
    return figure


def picture(kept) -> bytes:
    with kept:
        return draw(Shown("key", "Title", "Caption.", "Alt", full_of_texts)).data


def without_keeping(monkeypatch) -> bytes:
    with monkeypatch.context() as patch:
        patch.setattr(text_layouts, "layouts_kept", nullcontext)
        return picture(nullcontext())


def test_pictures_are_what_they_are_without_it(monkeypatch):
    expected = without_keeping(monkeypatch)
    assert not text_layouts._kept
    first = picture(nullcontext())
    assert text_layouts._kept
    again = picture(nullcontext())  # of layouts that are kept already
    assert first == again == expected


def test_a_setting_of_fonts_gives_other_layouts(monkeypatch):
    picture(nullcontext())
    with mpl.rc_context({"font.sans-serif": ["DejaVu Serif"]}):
        assert picture(nullcontext()) == without_keeping(monkeypatch)


def test_pixels_have_layouts_of_their_own():
    def cloud() -> Figure:
        figure = full_of_texts()
        figure.axes[0].scatter(range(1, 20_000), range(1, 20_000))
        return figure

    picture(nullcontext())
    after = draw(Shown("key", "Title", "Caption.", "Alt", cloud))
    text_layouts._kept.clear()
    alone = draw(Shown("key", "Title", "Caption.", "Alt", cloud))
    assert after.suffix == "png"
    assert after == alone


def test_each_layout_is_computed_once_and_matplotlib_is_left_as_it_was(monkeypatch):
    original = Text._get_layout
    calls = []

    def counted(text, renderer):
        calls.append(text.get_text())
        return original(text, renderer)

    monkeypatch.setattr(Text, "_get_layout", counted)
    picture(layouts_kept())  # nested in another
    wrapped_or_turned = [text for text in calls if text == "$x^2$ of a layer\nbelow"]
    assert calls.count("two\nlines") == 1
    assert len(wrapped_or_turned) > 13
    assert Text._get_layout is counted


def test_a_matplotlib_without_that_method_draws_all_the_same(monkeypatch):
    monkeypatch.setattr(text_layouts, "_METHOD", "_no_such_method")
    assert picture(nullcontext()).startswith(b"<?xml")
    assert not text_layouts._kept
