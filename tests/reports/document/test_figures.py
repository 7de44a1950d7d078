"""Figures are drawn once, the same each time, and a failing one leaves a note."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure as Drawing

from analyses.result import Figure
from reports.document import figures


def line() -> Drawing:
    drawing, axes = pyplot.subplots(figsize=(6.7, 3))
    axes.plot([0, 1], [0, 1], label="network")
    axes.legend()
    return drawing


def figure(draw) -> Figure:
    return Figure("key", "Title", "Caption.", "Alt", draw)


def test_equal_drawings_give_equal_files():
    first, second = (figures.draw_figure(figure(line), "Figure 1").picture for _ in range(2))
    assert first == second
    assert b"<dc:date>" not in first.data


def test_letters_are_paths_and_the_size_is_that_of_the_file():
    picture = figures.draw_figure(figure(line), "Figure 1").picture
    assert picture.suffix == "svg"
    assert b"<text" not in picture.data
    assert re.search(rb'width="([\d.]+)pt"', picture.data)[1] == str(picture.width).encode()
    assert 400 < picture.width < 500


def test_drawing_is_closed():
    before = pyplot.get_fignums()
    figures.draw_figure(figure(line), "Figure 1")
    assert pyplot.get_fignums() == before


def test_drawing_that_raises_becomes_a_note():
    def fail() -> Drawing:
        raise KeyError("layer")

    part = figures.draw_figure(figure(fail), "Figure 3")
    assert part.picture is None
    assert part.note == "This figure could not be drawn: KeyError: 'layer'"
    assert (part.label, part.title, part.caption) == ("Figure 3", "Title.", "Caption.")


def test_drawing_of_very_many_marks_is_kept_as_pixels():
    def cloud() -> Drawing:
        drawing = Drawing(figsize=(3, 2))
        x = np.arange(20_000.0)
        drawing.subplots().scatter(x, np.sin(x * x))
        return drawing

    part = figures.draw_figure(figure(cloud), "Figure 1")
    assert part.picture.suffix == "png"
    assert part.picture.data.startswith(b"\x89PNG")
    assert 150 < part.picture.width < 250


@pytest.mark.parametrize(
    ("title", "shown"), [("It grows", "It grows."), ("It grows.", "It grows.")]
)
def test_title_ends_as_a_sentence(title, shown):
    assert figures.draw_figure(replace(figure(line), title=title), "Figure 1").title == shown


def titled(name):
    def draw() -> Drawing:
        drawing = line()
        drawing.axes[0].set_title(name)
        drawing.axes[0].set_xticks([0, 1], labels=[name, "other"])
        return drawing

    return figures.draw_figure(figure(draw), "Figure 1")


@pytest.mark.parametrize("name", ["\x1b[31mred", "a\0b", "--><script>", "\ufffe"])
def test_names_leave_nothing_in_the_drawing_that_xml_may_not_hold(name):
    picture = titled(name).picture
    ElementTree.fromstring(picture.data)
    assert b"<!--" not in picture.data
    assert b"script" not in picture.data


def test_dollars_in_a_name_are_dollars():
    assert titled(r"$\frac$").note == ""
    shown, formula = titled("$x^2$").picture.data, titled("x^2").picture.data
    assert shown.count(b"<use") == formula.count(b"<use") + 4  # two names with two dollars each


def test_formulas_of_ours_are_formulas():
    plain, formula = titled("w^2").picture.data, titled("w$^2$").picture.data
    assert formula.count(b"<use") == plain.count(b"<use") - 2


def test_a_drawing_that_a_name_makes_endless_is_left_out():
    part = titled("a" * 2000)
    assert part.picture is None
    assert re.search(r"its names would make it [\d,]+ inches long", part.note)
