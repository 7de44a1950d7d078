"""A training killed at any moment stays readable, and resumes as if never interrupted."""

import random
import signal

import pytest
from fault_checks import check_end, check_interrupted
from fault_injection import Circumstances, Fault, start

MERGING = {"merged_at_once": 2}


def go_on(reference, folder, log, **circumstances):
    training = start(reference.next_command(folder), folder, log, Circumstances(**circumstances))
    assert training.wait() == 0, training.errors
    check_end(folder, reference)


def nth(moments, name, share):
    """The number of a moment `name` that comes after the given `share` of all such moments."""
    numbers = [number for number, each in enumerate(moments, 1) if each == name]
    return numbers[int(share * (len(numbers) - 1))]


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("written", 0),  # the experiment is not named yet
        ("renamed", 0.5),  # a part is there that the manifest does not list
        ("merged", 0.8),  # a merged part counts, and those that it was made of are still there
        ("remove", 0.9),
        ("appended", 1),
    ],
)
def test_killed_training_loses_nothing_and_ends_like_an_uninterrupted_one(
    name, share, reference, tmp_path
):
    folder = tmp_path / "experiment"
    fault = Fault("kill", nth(reference.moments, name, share))
    killed = start(
        reference.command(folder), folder, tmp_path / "log", Circumstances(fault, **MERGING)
    )
    assert killed.wait() == -signal.SIGKILL
    check_interrupted(folder, reference)
    go_on(reference, folder, tmp_path / "log", **MERGING)


def test_half_a_line_of_the_manifest_loses_nothing(reference, tmp_path):
    folder = tmp_path / "experiment"
    fault = Fault("torn", reference.moments.count("appended") // 2)
    killed = start(
        reference.command(folder), folder, tmp_path / "log", Circumstances(fault, **MERGING)
    )
    assert killed.wait() == -signal.SIGKILL
    last = (folder / "plain20-seed2025" / "manifest.jsonl").read_text()
    assert not last.endswith("\n")
    check_interrupted(folder, reference)
    go_on(reference, folder, tmp_path / "log")


def test_resuming_may_be_killed_as_well(reference, tmp_path):
    folder = tmp_path / "experiment"
    for seed, at in enumerate((len(reference.moments) // 2, 4, 9)):
        circumstances = Circumstances(Fault("kill", at), merged_at_once=2 + seed)
        killed = start(reference.next_command(folder), folder, tmp_path / "log", circumstances)
        assert killed.wait() == -signal.SIGKILL
        check_interrupted(folder, reference)
    go_on(reference, folder, tmp_path / "log", **MERGING)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_killed_at_random_times_and_moments(seed, reference, tmp_path):
    draw = random.Random(seed)
    folder = tmp_path / "experiment"
    at = draw.randint(1, len(reference.moments))
    fault = Fault("kill", at) if seed % 2 else None
    killed = start(
        reference.command(folder), folder, tmp_path / "log", Circumstances(fault, **MERGING)
    )
    if fault is None:
        killed.kill_after(draw.uniform(0, reference.seconds))
    else:
        assert killed.wait() == -signal.SIGKILL
    check_interrupted(folder, reference)
    go_on(reference, folder, tmp_path / "log", merged_at_once=draw.choice((2, 32)))
