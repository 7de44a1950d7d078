"""Figures drawn in other processes: the same pictures and notes, whatever becomes of a process."""

import os
import signal
from time import sleep

import pytest
from matplotlib.figure import Figure as Drawing

from analyses.result import Figure
from analyses.showing import drawing_ahead
from analyses.showing.drawing import draw
from analyses.showing.drawing_ahead import DrawingAhead

HERE = os.getpid()
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")


def figure(number: int, also=lambda: None) -> Figure:
    def line() -> Drawing:
        also()
        drawing = Drawing(figsize=(2, 1))
        drawing.subplots().plot([0, number])
        return drawing

    return Figure(f"line-{number}", "Title", "Caption.", "Alt", line)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_pictures_are_those_that_this_process_would_draw():
    figures = [figure(number) for number in range(5)]
    expected = [draw(one) for one in figures]
    with DrawingAhead(2) as ahead:
        ahead.add(figures[:2])
        ahead.add(figures[2:4])
        assert [ahead.picture(one) for one in figures] == expected


def test_figure_is_drawn_by_another_process(tmp_path):
    def sign() -> None:
        (tmp_path / str(os.getpid())).touch()

    with DrawingAhead(1) as ahead:
        ahead.add([figure(1, sign)])
        for _ in range(500):
            if list(tmp_path.iterdir()):
                break
            sleep(0.01)
        assert ahead.picture(ahead._batch[0]) == draw(figure(1))
    assert [int(path.name) for path in tmp_path.iterdir()] != [HERE]


def test_drawing_that_raises_becomes_a_note_wherever_it_is_drawn():
    def fail() -> None:
        raise KeyError("layer")

    failing = figure(1, fail)
    with DrawingAhead(1) as ahead:
        ahead.add([failing])
        note = ahead.picture(failing)
    assert note == "This figure could not be drawn: KeyError: 'layer'"


def test_what_a_killed_process_had_claimed_is_drawn_here():
    def die_elsewhere() -> None:
        if os.getpid() != HERE:
            os.kill(os.getpid(), signal.SIGKILL)

    figures = [figure(number, die_elsewhere) for number in range(3)]
    with DrawingAhead(2) as ahead:
        ahead.add(figures)
        sleep(0.2)  # they claim and die
        pictures = [ahead.picture(one) for one in figures]
    assert pictures == [draw(figure(number)) for number in range(3)]


def test_process_that_sends_nothing_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(drawing_ahead, "_LONGEST_WAIT", 0.2)
    waiting = figure(1, lambda: sleep(60) if os.getpid() != HERE else None)
    with DrawingAhead(1) as ahead:
        ahead.add([waiting])
        sleep(0.2)  # it claims the figure
        assert ahead.picture(waiting) == draw(figure(1))


def test_processes_end_with_the_context():
    slow = figure(1, lambda: sleep(60) if os.getpid() != HERE else None)
    with DrawingAhead(1) as ahead:
        ahead.add([slow])
        (worker,) = ahead._workers.values()
        assert alive(worker.pid)
    assert not alive(worker.pid)


def test_without_processes_nothing_is_drawn_before_it_is_asked_for():
    drawn = []
    with DrawingAhead(0) as ahead:
        one = figure(1, lambda: drawn.append(1))
        ahead.add([one])
        assert not drawn
        assert ahead.picture(one) == draw(figure(1))
    assert drawn
