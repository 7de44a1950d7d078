"""A full or failing disk ends a training with one sentence; its run can be resumed."""

import errno
import os
import resource
import signal

import pytest
from fault_checks import check_end, check_interrupted
from fault_injection import Circumstances, Fault, start
from torch import nn

from gradflow.errors import RunError
from gradflow.train_and_trace import main
from gradflow.training import checkpoints


def assert_one_sentence(training, *expected):
    assert training.wait() == 1, training.errors
    assert training.errors.startswith("error: ")
    assert len(training.errors.splitlines()) == 1
    assert all(words in training.errors for words in expected), training.errors


def go_on(reference, folder, log):
    training = start(reference.next_command(folder), folder, log)
    assert training.wait() == 0, training.errors
    check_end(folder, reference)


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "share", [0.5, *(pytest.param(one, marks=pytest.mark.slow) for one in (0.02, 0.3, 0.8, 0.95))]
)
def test_full_disk_is_said_and_once_it_has_room_the_training_goes_on(
    share, reference, tmp_path, mount
):
    disk = mount(int(share * size_of(reference.folder)))
    folder = disk.folder / "experiment"
    training = start(reference.command(folder), folder, tmp_path / "log")
    assert_one_sentence(training, "No space left on device", str(folder))
    check_interrupted(folder, reference)
    disk.enlarge(1 << 26)
    go_on(reference, folder, tmp_path / "log")


@pytest.mark.parametrize(
    ("kind", "share", "lasting"),
    [
        ("EIO", 0.55, False),
        ("EIO", 0.81, True),
        *(
            pytest.param(kind, number / 12, lasting, marks=pytest.mark.slow)
            for kind in ("ENOSPC", "EIO")
            for lasting in (False, True)
            for number in range(12)
        ),
    ],
)
def test_failing_system_call_is_said_and_loses_nothing(kind, share, lasting, reference, tmp_path):
    folder = tmp_path / "experiment"
    fault = Fault(kind, 1 + int(share * len(reference.moments)), lasting)
    training = start(
        reference.command(folder), folder, tmp_path / "log", Circumstances(fault, merged_at_once=2)
    )
    if training.wait() != 0:  # else it hit a merge, which was left out
        assert_one_sentence(training, os.strerror(getattr(errno, kind)))
    check_interrupted(folder, reference)
    go_on(reference, folder, tmp_path / "log")


def test_weights_that_do_not_fit_on_the_disk_give_one_sentence(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(RunError, match=r"best\.pt cannot be written"):
            checkpoints.save(tmp_path / "best.pt", nn.Linear(50, 50))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_read_only_folder_is_said_and_left_as_it_is(reference, tmp_path, mount, capsys):
    disk = mount(1 << 26)
    folder = disk.folder / "experiment"
    circumstances = Circumstances(Fault("kill", len(reference.moments) // 2))
    killed = start(reference.command(folder), folder, tmp_path / "log", circumstances)
    assert killed.wait() == -signal.SIGKILL
    disk.make_read_only()
    for arguments in (["--resume", str(folder)], reference.command(disk.folder / "another")):
        assert main(arguments) == 1
        errors = capsys.readouterr().err
        assert errors.startswith("error: ")
        assert "Read-only file system" in errors
        assert len(errors.splitlines()) == 1
    check_interrupted(folder, reference)
    disk.make_writable()
    go_on(reference, folder, tmp_path / "log")


def test_out_of_memory_is_said_and_the_training_goes_on_later(reference, tmp_path):
    folder = tmp_path / "experiment"
    circumstances = Circumstances(Fault("memory", 4))
    training = start(reference.command(folder), folder, tmp_path / "log", circumstances)
    assert_one_sentence(training, "out of memory", "--resume")
    check_interrupted(folder, reference)
    go_on(reference, folder, tmp_path / "log")


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [1, 4, 16, 24, 32, 48])
def test_address_space_that_runs_out_leaves_a_run_to_go_on_with(megabytes, reference, tmp_path):
    folder = tmp_path / "experiment"
    circumstances = Circumstances(address_space=megabytes << 20)
    training = start(reference.command(folder), folder, tmp_path / "log", circumstances)
    training.wait()  # it may do with that, or end in any way
    check_interrupted(folder, reference)
    go_on(reference, folder, tmp_path / "log")
