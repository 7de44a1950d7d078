"""Figures: reproducible files, notes for failed drawings, and safe handling of names."""

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

    element = figures.draw_figure(figure(fail), "Figure 3")
    assert element.picture is None
    assert element.note == "This figure could not be drawn: KeyError: 'layer'"
    assert (element.label, element.title, element.caption) == ("Figure 3", "Title.", "Caption.")


def narrow_line() -> Drawing:
    drawing = Drawing(figsize=(3.6, 3))
    drawing.subplots().plot([0, 1], [0, 1])
    return drawing


def test_a_drawing_for_phones_is_made_beside_the_other():
    drawn = figures.draw_figure(replace(figure(line), narrow=narrow_line), "Figure 1")
    assert drawn.picture == figures.draw_figure(figure(line), "Figure 1").picture
    assert drawn.narrow.width < 0.7 * drawn.picture.width
    assert figures.draw_figure(figure(line), "Figure 1").narrow is None


def test_where_the_drawing_for_phones_fails_the_other_one_is_left():
    def fail() -> Drawing:
        raise KeyError("layer")

    drawn = figures.draw_figure(replace(figure(line), narrow=fail), "Figure 1")
    assert drawn.narrow is None
    assert (drawn.picture.suffix, drawn.note) == ("svg", "")


def test_drawing_of_very_many_marks_is_kept_as_pixels():
    def cloud() -> Drawing:
        drawing = Drawing(figsize=(3, 2))
        x = np.arange(20_000.0)
        drawing.subplots().scatter(x, np.sin(x * x))
        return drawing

    element = figures.draw_figure(figure(cloud), "Figure 1")
    assert element.picture.suffix == "png"
    assert element.picture.data.startswith(b"\x89PNG")
    assert 150 < element.picture.width < 250


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
def test_names_leave_no_invalid_xml_in_the_drawing(name):
    picture = titled(name).picture
    ElementTree.fromstring(picture.data)
    assert b"<!--" not in picture.data
    assert b"script" not in picture.data


def test_dollars_in_a_name_are_drawn_as_dollars():
    assert titled(r"$\frac$").note == ""
    shown, formula = titled("$x^2$").picture.data, titled("x^2").picture.data
    assert shown.count(b"<use") == formula.count(b"<use") + 4  # two names with two dollars each


def test_known_formulas_are_drawn_as_formulas():
    plain, formula = titled("w^2").picture.data, titled("w$^2$").picture.data
    assert formula.count(b"<use") == plain.count(b"<use") - 2


def test_a_drawing_with_an_endless_name_is_left_out():
    element = titled("a" * 2000)
    assert element.picture is None
    assert re.search(r"its names would make it [\d,]+ inches long", element.note)
