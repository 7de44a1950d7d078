"""Figures drawn ahead: the same pictures and notes, for the page and for phones."""

import os

import pytest
from matplotlib.figure import Figure as Drawing

from analyses.result import Figure
from analyses.showing.drawing import draw
from analyses.showing.drawing_ahead import DrawingAhead
from analyses.showing.working_ahead import WorkAhead

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")


def line(number: int, also=lambda: None):
    def drawn() -> Drawing:
        also()
        drawing = Drawing(figsize=(2, 1))
        drawing.subplots().plot([0, number])
        return drawing

    return drawn


def figure(number: int, also=lambda: None, narrow=None) -> Figure:
    return Figure(f"line-{number}", "Title", "Caption.", "Alt", line(number, also), narrow)


@pytest.mark.parametrize("processes", [0, 2])
def test_pictures_are_those_that_this_process_would_draw(processes):
    figures = [figure(number) for number in range(5)]
    with WorkAhead(processes) as ahead:
        drawing = DrawingAhead(ahead)
        drawing.add(figures[:2])
        drawing.add(figures[2:4])
        assert [drawing.picture(one) for one in figures] == [draw(one) for one in figures]


def test_drawing_that_raises_becomes_a_note_wherever_it_is_drawn():
    def fail() -> None:
        raise KeyError("layer")

    failing = figure(1, fail)
    with WorkAhead(1) as ahead:
        drawing = DrawingAhead(ahead)
        drawing.add([failing])
        note = drawing.picture(failing)
    assert note == "This figure could not be drawn: KeyError: 'layer'"


def test_what_phones_show_is_drawn_ahead_too():
    drawn_here = []
    both = figure(1, narrow=line(2, lambda: drawn_here.append(1)))
    with WorkAhead(1) as ahead:
        drawing = DrawingAhead(ahead)
        drawing.add([both, figure(3)])
        while len(ahead._done) < 3:
            ahead._collect(1)
        assert drawing.picture(both) == draw(figure(1))
        assert drawing.picture(both.for_phones) == draw(figure(2))
    assert not drawn_here
    assert figure(1).for_phones is None
