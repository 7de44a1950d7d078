"""A reference experiment without interruption, and small disks that can be filled."""

import sys
import time
from pathlib import Path

import pytest

# A benchmark is the longer form of these tests, and has the code that both need.
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from fault_checks import make_images, make_reference
from fault_disks import CannotMountError, SmallDisk


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """Three epochs of three steps, uninterrupted, with parts merged in twos."""
    folder = tmp_path_factory.mktemp("reference")
    options = ("--data", str(make_images(folder / "images")), "--models", "plain20")
    options += ("--epochs", "3", "--batch-size", "8", "--trace-every", "1", "--probes", "none")
    options += ("--device", "cpu")  # here all results are promised to be equal bit for bit
    return make_reference(options, folder / "experiment", time.monotonic, merged_at_once=2)


@pytest.fixture
def mount(tmp_path):
    """Mounts a file system of a given size; skips the test if mounting is not allowed."""
    disks = []

    def mount(size):
        try:
            disks.append(SmallDisk(tmp_path / f"disk{len(disks)}", size))
        except CannotMountError as error:
            pytest.skip(str(error))
        return disks[-1]

    yield mount
    for disk in disks:
        disk.__exit__(None, None, None)
