"""Batches: their pixels, order and sizes; two networks of one seed get the same batches."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import v2

from gradflow.data import ImageData, evaluation_batches, steps_per_epoch, training_batches
from gradflow.data.batches import normalize, pixels
from gradflow.errors import ConfigurationError


def data_set(n=30, channels=3):
    pixels = np.random.default_rng(0).integers(0, 256, (n, channels, 8, 8), dtype=np.uint8)
    return ImageData(
        images=torch.from_numpy(pixels),
        labels=torch.arange(n) % 3,
        classes=("a", "b", "c"),
        names=tuple(map(str, range(n))),
        fingerprints=tuple(map(str, range(n))),
        flips=True,
    )


def training(data, indices, **options):
    options = {"batch_size": 4, "seed": 0, "epoch": 1, "augment": False, "device": "cpu"} | options
    return list(training_batches(data, indices, **options))


def images_by_index(batches):
    return {
        int(i): x for batch in batches for i, x in zip(batch.indices, batch.images, strict=True)
    }


@pytest.mark.parametrize("channels", [1, 3])
def test_evaluation_images_are_normalized_as_torchvision_does(channels):
    data, indices = data_set(channels=channels), torch.tensor([7, 3, 20, 1, 11])
    batches = list(evaluation_batches(data, indices, batch_size=2, device="cpu"))
    reference = v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    expected = reference(
        v2.functional.to_dtype(data.images[indices].expand(-1, 3, -1, -1), scale=True)
    )
    images = torch.cat([batch.images for batch in batches])
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, expected)
    assert [len(batch.targets) for batch in batches] == [2, 2, 1]
    assert torch.cat([batch.indices for batch in batches]).tolist() == indices.tolist()
    assert torch.cat([batch.targets for batch in batches]).tolist() == [1, 0, 2, 1, 2]


def test_training_images_without_augmentation_are_those_of_evaluation():
    data, indices = data_set(), torch.arange(0, 30, 2)
    ours = images_by_index(training(data, indices))
    plain = images_by_index(evaluation_batches(data, indices, batch_size=7, device="cpu"))
    assert ours.keys() == plain.keys()
    assert all(torch.equal(ours[i], plain[i]) for i in plain)


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_epoch_shows_each_training_image_once_with_its_target(augment, channels):
    data, indices = data_set(channels=channels), torch.arange(3, 26)
    batches = training(data, indices, augment=augment)
    shown = torch.cat([batch.indices for batch in batches])
    targets = torch.cat([batch.targets for batch in batches])
    assert sorted(shown.tolist()) == indices.tolist()
    assert torch.equal(targets, data.labels[shown])
    assert {batch.images.shape[1:] for batch in batches} == {(3, 8, 8)}
    assert {batch.images.dtype for batch in batches} == {torch.float32}


def test_the_order_depends_on_seed_and_epoch_alone():
    data, indices = data_set(), torch.arange(30)

    def order(**options):
        return torch.cat([batch.indices for batch in training(data, indices, **options)]).tolist()

    first = order(seed=1, epoch=1)
    torch.manual_seed(77)
    assert order(seed=1, epoch=1, augment=True) == first
    assert order(seed=1, epoch=1, batch_size=7) == first
    assert first != list(range(30))
    assert order(seed=1, epoch=2) != first
    assert order(seed=2, epoch=1) != first


def test_augmented_pixels_do_not_depend_on_the_batch():
    data, indices = data_set(), torch.arange(30)
    small = images_by_index(training(data, indices, augment=True, batch_size=4))
    large = images_by_index(training(data, indices, augment=True, batch_size=30))
    part = images_by_index(training(data, indices[::3], augment=True))
    assert all(torch.equal(small[i], large[i]) for i in range(30))
    assert all(torch.equal(small[i], part[i]) for i in part)
    assert len(part) == 10
    later = images_by_index(training(data, indices, augment=True, epoch=2))
    assert not any(torch.equal(small[i], later[i]) for i in range(30))


def test_draws_between_batches_change_nothing_and_are_not_changed():
    data, indices = data_set(), torch.arange(30)
    reference = training(data, indices, augment=True)
    torch.manual_seed(5)
    expected = torch.rand(9)
    torch.manual_seed(5)
    drawn = []
    batches = training_batches(
        data, indices, batch_size=4, seed=0, epoch=1, augment=True, device="cpu"
    )
    for batch, other in zip(batches, reference, strict=True):
        drawn.append(torch.rand(1))  # as dropout would
        assert torch.equal(batch.images, other.images)
    assert torch.equal(torch.cat(drawn), expected[: len(drawn)])


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"),
    [
        (10, 5, [5, 5]),
        (11, 5, [5, 6]),
        (12, 5, [5, 5, 2]),
        (5, 5, [5]),
        (6, 5, [6]),
        (3, 1, [1] * 3),
    ],
)
def test_a_single_image_left_over_joins_the_batch_before(n, batch_size, sizes):
    batches = training(data_set(), torch.arange(n), batch_size=batch_size)
    assert [len(batch.targets) for batch in batches] == sizes


@given(n=st.integers(1, 400), batch_size=st.integers(1, 400))
def test_steps_per_epoch_counts_ceilings_less_a_merged_single(n, batch_size):
    if batch_size > n:
        with pytest.raises(ConfigurationError):
            steps_per_epoch(n, batch_size)
        return
    merged = batch_size > 1 and n % batch_size == 1
    assert steps_per_epoch(n, batch_size) == math.ceil(n / batch_size) - merged


def test_steps_per_epoch_is_the_number_of_training_batches():
    for n, batch_size in ((30, 4), (29, 4), (25, 4), (30, 30)):
        batches = training(data_set(), torch.arange(n), batch_size=batch_size, augment=True)
        assert len(batches) == steps_per_epoch(n, batch_size)


def test_impossible_batch_sizes_are_refused_before_the_first_batch():
    data, indices = data_set(), torch.arange(20)
    options = {"seed": 0, "epoch": 1, "device": "cpu"}
    for augment in (True, False):
        with pytest.raises(
            ConfigurationError, match="batch size 64 is larger than the 20 training images"
        ):
            training_batches(data, indices, batch_size=64, augment=augment, **options)
        with pytest.raises(ConfigurationError, match="at least 1 image, not 0"):
            training_batches(data, indices, batch_size=0, augment=augment, **options)
    with pytest.raises(ConfigurationError, match="at least 1 image, not -3"):
        evaluation_batches(data, indices, batch_size=-3, device="cpu")


def test_evaluation_may_use_a_batch_larger_than_the_set_and_an_empty_set():
    data = data_set()
    assert len(list(evaluation_batches(data, torch.arange(3), batch_size=64, device="cpu"))) == 1
    empty = torch.arange(0)
    assert list(evaluation_batches(data, empty, batch_size=64, device="cpu")) == []


def test_pixels_are_what_was_normalized():
    whole = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    assert torch.equal(pixels(normalize(whole.float() / 255)), whole)


def test_pixels_beyond_the_range_are_clipped():
    assert pixels(torch.full((1, 3, 1, 1), 99.0)).unique().tolist() == [255]
    assert pixels(torch.full((1, 3, 1, 1), -99.0)).unique().tolist() == [0]
