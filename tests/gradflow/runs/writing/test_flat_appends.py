"""The cost of writing a part does not grow with the number of earlier parts."""

import gc
import sys
from collections import Counter

import pytest

from gradflow.runs.writing.run import RunWriter


@pytest.fixture
def calls():
    """The number of calls of each function while another function runs."""

    def count(function, *arguments):
        counted = Counter()

        def note(frame, event, called):
            if event == "call":
                counted[frame.f_code.co_qualname] += 1
            elif event == "c_call":
                counted[called.__qualname__] += 1

        before = sys.getprofile()
        gc.disable()  # who is told of a collection would be counted
        sys.setprofile(note)
        try:
            function(*arguments)
        finally:
            sys.setprofile(before)
            gc.enable()
        return counted

    return count


@pytest.mark.parametrize("at_once", [3, 1000])
def test_an_append_makes_the_same_calls_after_many_as_after_few(
    at_once, calls, tmp_path, small_run, merging, unflushed
):
    merging(at_once)
    few, many = 3, 27  # the next one is not due to be merged
    with RunWriter(tmp_path / "run", {}) as writer:
        small_run.write(writer, 1, few)
        after_few = calls(small_run.write, writer, few + 1, few + 1)
        small_run.write(writer, few + 2, many)
        after_many = calls(small_run.write, writer, many + 1, many + 1)
    assert after_few["RunWriter.append"] == 3
    assert after_many == after_few
