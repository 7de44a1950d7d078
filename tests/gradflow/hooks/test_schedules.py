import pytest

from gradflow.errors import TracingError
from gradflow.hooks.schedules import every


def test_every_third_step_from_the_first():
    schedule = every(3)
    assert [step for step in range(8) if schedule(step)] == [0, 3, 6]


@pytest.mark.parametrize("interval", [0, -1, 1.5, True, "2"])
def test_anything_but_a_positive_whole_number_is_refused(interval):
    with pytest.raises(TracingError, match="whole number of steps"):
        every(interval)
