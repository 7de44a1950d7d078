"""Images that the commands are tried on."""

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
