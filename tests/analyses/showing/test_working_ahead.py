"""Work done in other processes: the same results and errors, whatever becomes of a process."""

import os
import signal
from time import sleep

import pytest

from analyses.showing import working_ahead
from analyses.showing.working_ahead import WorkAhead

HERE = os.getpid()
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")


def piece(number: int, also=lambda: None):
    def work() -> list[int]:
        also()
        return [number]

    return work


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_results_are_those_that_this_process_would_get():
    pieces = [piece(number) for number in range(5)]
    with WorkAhead(2) as ahead:
        ahead.add(pieces[:2])
        ahead.add(pieces[2:4])
        assert [ahead.result(one) for one in pieces] == [[number] for number in range(5)]


def test_piece_is_done_by_another_process(tmp_path):
    def sign() -> None:
        (tmp_path / str(os.getpid())).touch()

    one = piece(1, sign)
    with WorkAhead(1) as ahead:
        ahead.add([one])
        for _ in range(500):
            if list(tmp_path.iterdir()):
                break
            sleep(0.01)
        assert ahead.result(one) == [1]
    assert [int(path.name) for path in tmp_path.iterdir()] != [HERE]


def test_piece_that_raises_raises_where_its_result_is_asked_for(tmp_path):
    def fail() -> None:
        (tmp_path / str(os.getpid())).touch()
        raise KeyError("layer")

    failing, other = piece(1, fail), piece(2)
    with WorkAhead(1) as ahead:
        ahead.add([other, failing])
        for _ in range(500):
            if list(tmp_path.iterdir()):
                break
            sleep(0.01)
        assert ahead.result(other) == [2]
        with pytest.raises(KeyError, match="layer"):
            ahead.result(failing)


def test_result_that_cannot_be_sent_is_made_here():
    def work():
        return work

    with WorkAhead(1) as ahead:
        ahead.add([work])
        sleep(0.2)
        assert ahead.result(work) is work


def test_what_a_killed_process_had_claimed_is_done_here():
    def die_elsewhere() -> None:
        if os.getpid() != HERE:
            os.kill(os.getpid(), signal.SIGKILL)

    pieces = [piece(number, die_elsewhere) for number in range(3)]
    with WorkAhead(2) as ahead:
        ahead.add(pieces)
        sleep(0.2)  # they claim and die
        assert [ahead.result(one) for one in pieces] == [[0], [1], [2]]


def test_process_that_sends_nothing_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(working_ahead, "_LONGEST_WAIT", 0.2)
    waiting = piece(1, lambda: sleep(60) if os.getpid() != HERE else None)
    with WorkAhead(1) as ahead:
        ahead.add([waiting])
        sleep(0.2)  # it claims the piece
        assert ahead.result(waiting) == [1]


def test_processes_end_with_the_context():
    slow = piece(1, lambda: sleep(60) if os.getpid() != HERE else None)
    with WorkAhead(1) as ahead:
        ahead.add([slow])
        (worker,) = ahead._workers.values()
        assert alive(worker.pid)
    assert not alive(worker.pid)


def test_without_processes_nothing_is_done_before_it_is_asked_for():
    done = []
    one = piece(1, lambda: done.append(1))
    with WorkAhead(0) as ahead:
        ahead.add([one])
        assert not done
        assert ahead.result(one) == [1]
    assert done
