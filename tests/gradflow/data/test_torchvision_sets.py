"""torchvision's data sets by name, in their real file formats, and never downloaded."""

import gzip
import socket
import struct

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from gradflow.data import load
from gradflow.data.torchvision_sets import PUBLISHED
from gradflow.errors import ConfigurationError, DataError


@pytest.fixture(autouse=True)
def no_internet(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def write_mnist(root, kind="MNIST"):
    """12 training and 4 test images in the published format, gzipped IDX unpacked."""
    folder = root / kind / "raw"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 28, 28), dtype=np.uint8)
    pixels[15] = pixels[0]
    labels = (np.arange(16) % 10).astype(np.uint8)
    for begin, part in (("train", slice(0, 12)), ("t10k", slice(12, 16))):
        few, many = labels[part], pixels[part]
        image_bytes = struct.pack(">IIII", 0x803, len(many), 28, 28) + many.tobytes()
        label_bytes = struct.pack(">II", 0x801, len(few)) + few.tobytes()
        for name, content in (("images-idx3", image_bytes), ("labels-idx1", label_bytes)):
            (folder / f"{begin}-{name}-ubyte").write_bytes(content)
            (folder / f"{begin}-{name}-ubyte.gz").write_bytes(gzip.compress(content))
    return pixels, labels


def test_mnist_is_gray_with_its_published_split(tmp_path):
    pixels, labels = write_mnist(tmp_path)
    data = load("torchvision:MNIST", root=tmp_path)
    np.testing.assert_array_equal(data.images[:, 0].numpy(), pixels)
    assert data.labels.tolist() == labels.tolist()
    assert data.classes[3] == "3 - three"
    assert data.official_validation.tolist() == [False] * 12 + [True] * 4
    assert data.flips is False
    assert data.notes == (
        "the published split is used",
        "warning, images on both sides of the published split, which is kept: 1",
    )
    by_path = load(f"torchvision:MNIST@{tmp_path}", image_size=14)
    assert by_path.images.shape == (16, 1, 14, 14)
    assert by_path.fingerprints == data.fingerprints


def test_a_data_set_of_files_has_colors_and_no_split_if_none_is_published(tmp_path):
    for number in range(6):
        path = tmp_path / "eurosat" / "2750" / ("Forest", "River")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (10 * number, 9, 9)).save(path)
    data = load("torchvision:EuroSAT", root=tmp_path)
    assert data.images.shape == (6, 3, 64, 64)
    assert (data.classes, data.class_counts) == (("Forest", "River"), [3, 3])
    assert data.official_validation is None
    assert data.notes == ()


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_what_is_not_on_the_disk_is_not_downloaded(tmp_path, name):
    with pytest.raises(DataError) as raised:
        load(f"torchvision:{name}@{tmp_path}")
    assert f"torchvision's {name} is not in {tmp_path}" in str(raised.value)
    assert "download=True" in str(raised.value)
    assert list(tmp_path.iterdir()) in ([], [tmp_path / name.lower()])


@pytest.mark.parametrize(
    ("name", "hint"),
    [("CIFAR1", r"\(did you mean CIFAR10\?\)"), ("mnist", "MNIST"), ("FakeData", "use one of")],
)
def test_unknown_names_are_refused_with_what_exists(name, hint):
    with pytest.raises(DataError, match=f"torchvision:{name} is none of .*{hint}"):
        load(f"torchvision:{name}")


def test_every_name_is_one_of_torchvisions():
    assert all(hasattr(torchvision.datasets, name) for name in PUBLISHED)


def test_images_that_do_not_fit_into_the_memory_are_refused(tmp_path):
    write_mnist(tmp_path)
    with pytest.raises(ConfigurationError, match="more than this machine's memory"):
        load("torchvision:MNIST", root=tmp_path, image_size=10_000_000)


def test_pixels_are_resized_as_those_of_files(tmp_path):
    pixels, _ = write_mnist(tmp_path)
    resized = load("torchvision:MNIST", root=tmp_path, image_size=16).images[2, 0]
    expected = Image.fromarray(pixels[2]).resize((16, 16), Image.Resampling.BILINEAR)
    assert torch.equal(resized, torch.from_numpy(np.array(expected)))
