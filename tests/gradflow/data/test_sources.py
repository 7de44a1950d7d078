"""Loading: digits, folders, CIFAR-10 in its real file format, and unknown sources."""

import hashlib
import pickle
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits

from gradflow.data import load
from gradflow.errors import ConfigurationError, DataError


def write_pictures(folder, sizes):
    generator = np.random.default_rng(0)
    for number, (width, height) in enumerate(sizes):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)


def test_digits_are_scikit_learns_at_32_pixels():
    data, original = load("digits"), load_digits()
    assert data.images.shape == (1797, 1, 32, 32)
    assert data.images.dtype == torch.uint8
    assert data.labels.tolist() == original.target.tolist()
    assert data.classes == tuple("0123456789")
    assert data.names[:2] == ("0", "1")
    assert data.flips is False
    assert data.official_validation is None
    assert len(set(data.fingerprints)) == len(np.unique(original.images, axis=0))


def test_digits_at_their_own_size_are_scaled_from_16_to_255():
    images = load("digits", image_size=8).images
    expected = np.round(load_digits().images * 255 / 16)
    np.testing.assert_array_equal(images[:, 0].numpy(), expected)


def test_upsampled_digits_equal_pillows_bilinear_resize():
    original, ours = load_digits().images, load("digits").images
    for index in (0, 100, 1796):
        image = Image.fromarray((original[index] * 255 / 16).astype(np.float32))
        reference = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
        assert np.abs(ours[index, 0].numpy() - reference).max() <= 0.51


def test_a_folder_gives_pixels_labels_names_and_file_hashes(tmp_path):
    write_pictures(tmp_path, [(6, 6)] * 4)
    data = load(str(tmp_path))
    assert data.classes == ("a", "b")
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert data.names == ("a/0.png", "a/2.png", "b/1.png", "b/3.png")
    assert data.flips is True
    for index, name in enumerate(data.names):
        path = tmp_path / name
        assert data.fingerprints[index] == hashlib.sha256(path.read_bytes()).hexdigest()
        np.testing.assert_array_equal(
            data.images[index].permute(1, 2, 0).numpy(), np.asarray(Image.open(path))
        )


def test_a_csv_gives_the_same_images_as_the_folder_a_class(tmp_path):
    write_pictures(tmp_path / "classes", [(6, 6)] * 6)
    by_class = load(str(tmp_path / "classes"))
    (tmp_path / "flat" / "train").mkdir(parents=True)
    rows = ["filename,label"]
    for name in reversed(by_class.names):
        label, file = name.split("/")
        rows.append(f"{file},{label}")
        (tmp_path / "flat" / "train" / file).write_bytes((tmp_path / "classes" / name).read_bytes())
    (tmp_path / "flat" / "train.csv").write_text("\n".join(rows))

    by_table = load(str(tmp_path / "flat"))

    assert by_table.names == tuple(f"train/{number}.png" for number in range(6))
    place = {fingerprint: i for i, fingerprint in enumerate(by_class.fingerprints)}
    order = [place[fingerprint] for fingerprint in by_table.fingerprints]
    assert torch.equal(by_table.images, by_class.images[order])
    assert torch.equal(by_table.labels, by_class.labels[order])


@pytest.mark.parametrize(
    ("sizes", "image_size", "expected"),
    [
        ([(12, 12)] * 4, None, 12),
        ([(12, 12)] * 3 + [(13, 13)], None, 224),
        ([(12, 10)] * 4, None, 224),
        ([(12, 10)] * 4, 9, 9),
    ],
)
def test_images_of_a_folder_keep_a_common_square_size_or_get_224(
    tmp_path, sizes, image_size, expected
):
    write_pictures(tmp_path, sizes)
    assert load(str(tmp_path), image_size=image_size).images.shape == (4, 3, expected, expected)


@pytest.mark.parametrize("content", [b"", b"text", None])
@pytest.mark.parametrize("image_size", [None, 6])
def test_a_corrupt_image_is_named(tmp_path, content, image_size):
    write_pictures(tmp_path, [(20, 20)] * 4)
    path = tmp_path / "b" / "3.png"
    path.write_bytes(path.read_bytes()[:600] if content is None else content)
    with pytest.raises(DataError, match=r"b/3.png is not a readable image; replace or remove it"):
        load(str(tmp_path), image_size=image_size)


def test_unknown_sources_are_refused_with_what_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"'digit' \(did you mean digits\?\); use digits, cifar10"):
        load("digit")
    with pytest.raises(DataError, match=r"no data set and no folder called 'imagenet'; use"):
        load("imagenet")
    with pytest.raises(DataError, match=r"the folder photos/dishes does not exist"):
        load("photos/dishes")


def test_an_impossible_image_size_is_refused():
    with pytest.raises(ConfigurationError, match="at least 1 pixel a side, not 0"):
        load("digits", image_size=0)


def write_cifar10(root, monkeypatch):
    """Two images per training batch and three test images, in the format of the published files."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(1)
    batches = {f"data_batch_{number}": 2 for number in range(1, 6)} | {"test_batch": 3}
    rows, labels = [], []
    for name, count in batches.items():
        pixels = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
        entry = {"data": pixels, "labels": list(range(len(labels), len(labels) + count))}
        entry["labels"] = [label % 10 for label in entry["labels"]]
        (folder / name).write_bytes(pickle.dumps(entry))
        rows.append(pixels)
        labels += entry["labels"]
    meta = {"label_names": [f"kind{number}" for number in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta))
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *args: True)
    return np.concatenate(rows).reshape(-1, 3, 32, 32), labels


def test_cifar10_keeps_the_official_test_images_for_validation(tmp_path, monkeypatch):
    pixels, labels = write_cifar10(tmp_path, monkeypatch)
    data = load("cifar10", root=tmp_path)
    np.testing.assert_array_equal(data.images.numpy(), pixels)
    assert data.labels.tolist() == labels
    assert data.classes[3] == "kind3"
    assert data.official_validation.tolist() == [False] * 10 + [True] * 3
    assert data.flips is True
    assert len(set(data.fingerprints)) == 13
    assert load("cifar10", root=tmp_path, image_size=16).images.shape == (13, 3, 16, 16)


@pytest.mark.parametrize("failure", [URLError("no route"), RuntimeError("corrupted")])
def test_cifar10_that_cannot_be_had_is_refused_in_one_sentence(tmp_path, monkeypatch, failure):
    def fail(*args, **options):
        raise failure

    monkeypatch.setattr(torchvision.datasets.cifar, "download_and_extract_archive", fail)
    with pytest.raises(DataError, match=r"^CIFAR-10 is not in .* and cannot be downloaded; "):
        load("cifar10", root=tmp_path)
