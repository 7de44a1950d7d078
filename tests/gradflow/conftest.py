"""What the commands are tried on and with: images, and a process of their own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """24 photographs-to-be in two classes, dark and bright."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for name, level in (("bright", 180), ("dark", 40)):
        (folder / name).mkdir()
        for index in range(12):
            pixels = level + generator.integers(0, 60, (16, 16, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture
def in_fresh_process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python with `arguments` in the folder `cwd`; `paths` come before gradflow's own."""
    home = Path(__file__).resolve().parents[2]

    def run(arguments: list[str], cwd: Path, *paths: Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*paths, home]))}
        return subprocess.run(
            [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True,
            check=False, timeout=120,
        )  # fmt: skip

    return run
