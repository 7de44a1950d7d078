"""The split: proportions counted by hand, and no image on both sides despite duplicates."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gradflow.data import Duplicates, ImageData, find_duplicates, load, split
from gradflow.errors import ConfigurationError, DataError


def data_set(labels, fingerprints=None, official=None):
    n = len(labels)
    return ImageData(
        images=torch.zeros(n, 3, 2, 2, dtype=torch.uint8),
        labels=torch.tensor(labels),
        classes=tuple(f"class{label}" for label in range(max(labels) + 1)),
        names=tuple(f"{index}.png" for index in range(n)),
        fingerprints=tuple(fingerprints or map(str, range(n))),
        flips=True,
        official_validation=official,
    )


def counts(data, indices):
    return torch.bincount(data.labels[indices], minlength=len(data.classes)).tolist()


def test_five_classes_of_245_images_split_into_980_and_245():
    data = data_set([label for label in range(5) for _ in range(245)])
    drawn = split(data, seed=2025)
    assert counts(data, drawn.training) == [196] * 5
    assert counts(data, drawn.validation) == [49] * 5


def test_unequal_classes_keep_their_proportions():
    data = data_set([0] * 100 + [1] * 50 + [2] * 10)
    drawn = split(data, validation_fraction=0.3, seed=1)
    assert counts(data, drawn.validation) == [30, 15, 3]
    assert counts(data, drawn.training) == [70, 35, 7]


def test_digits_keep_each_classs_share_to_within_one_image():
    data = load("digits", image_size=8)
    drawn = split(data, seed=0)
    assert (len(drawn.training), len(drawn.validation)) == (1437, 360)
    for all_, validating in zip(
        counts(data, torch.arange(1797)), counts(data, drawn.validation), strict=True
    ):
        assert abs(validating - all_ * 360 / 1797) < 1


def test_indices_are_ascending_int64_and_cover_every_image_once():
    drawn = split(data_set([0, 1] * 20), seed=3)
    assert drawn.training.dtype == drawn.validation.dtype == torch.int64
    assert drawn.training.tolist() == sorted(drawn.training.tolist())
    assert drawn.validation.tolist() == sorted(drawn.validation.tolist())
    assert sorted(torch.cat([drawn.training, drawn.validation]).tolist()) == list(range(40))


def test_the_seed_alone_decides():
    data = data_set([0, 1] * 50)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = split(data, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(split(data, seed=3).validation, first.validation)
    assert not torch.equal(split(data, seed=4).validation, first.validation)


def test_every_image_validates_about_equally_often():
    data = data_set([0] * 30 + [1] * 20)
    times = torch.zeros(50)
    for seed in range(200):
        times[split(data, seed=seed).validation] += 1
    # binomial(200, 0.2): mean 40, standard deviation 5.7
    assert times.min() > 40 - 5 * 5.7
    assert times.max() < 40 + 5 * 5.7


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.lists(st.integers(1, 6), min_size=3, max_size=12), min_size=2, max_size=4),
    fraction=st.floats(0.2, 0.6),
    seed=st.integers(0, 2**32 - 1),
)
def test_identical_images_are_never_on_both_sides(sizes, fraction, seed):
    labels, fingerprints = [], []
    for label, groups in enumerate(sizes):
        for group, size in enumerate(groups):
            labels += [label] * size
            fingerprints += [f"{label}-{group}"] * size
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).tolist()
    data = data_set([labels[i] for i in order], [fingerprints[i] for i in order])
    largest = max(size for groups in sizes for size in groups)
    validating = fraction * len(labels)
    assume(min(validating, len(labels) - validating - 1) >= len(sizes))

    drawn = split(data, validation_fraction=fraction, seed=seed)

    sides = [{data.fingerprints[i] for i in side.tolist()} for side in vars(drawn).values()]
    assert not sides[0] & sides[1]
    assert len(drawn.training) + len(drawn.validation) == len(labels)
    for all_, training, validation in zip(
        counts(data, torch.arange(len(labels))),
        counts(data, drawn.training),
        counts(data, drawn.validation),
        strict=True,
    ):
        assert training > 0
        assert abs(validation - fraction * all_) < largest + 1


def test_duplicates_do_not_move_the_proportions_where_groups_can_fill_them():
    labels = [0] * 60 + [1] * 60
    fingerprints = [f"{i // 3 if i % 60 < 30 else 1000 + i}" for i in range(120)]
    data = data_set(labels, fingerprints)
    for seed in range(10):
        assert counts(data, split(data, seed=seed).validation) == [12, 12]


def test_one_image_under_two_labels_is_named_and_stays_on_one_side():
    data = data_set([0] * 5 + [1] * 5, [*"abcde", *"fghic"])
    assert find_duplicates(data) == Duplicates(distinct=9, conflicts=(("2.png", "9.png"),))
    for seed in range(10):
        drawn = split(data, seed=seed)
        assert (2 in drawn.training) == (9 in drawn.training)
        assert len(drawn.training) + len(drawn.validation) == 10


def test_an_official_validation_set_is_taken_as_it_is():
    official = torch.tensor([False, True, False, True, False, False])
    data = data_set([0, 0, 1, 1, 1, 0], official=official)
    for seed in (0, 1):
        drawn = split(data, seed=seed, validation_fraction=0.5)
        assert drawn.training.tolist() == [0, 2, 4, 5]
        assert drawn.validation.tolist() == [1, 3]


def test_an_official_validation_set_without_a_class_is_refused():
    data = data_set([0, 0, 1, 1], official=torch.tensor([True, False, False, False]))
    with pytest.raises(DataError, match="no validation image belongs to the class class1"):
        split(data, seed=0)


def test_a_small_class_is_on_both_sides():
    data = data_set([0] * 98 + [1] * 2)
    for seed in range(5):
        drawn = split(data, seed=seed)
        assert counts(data, drawn.training)[1] == counts(data, drawn.validation)[1] == 1


@pytest.mark.parametrize(
    ("labels", "fingerprints", "fraction", "message"),
    [
        ([0] * 20 + [1], None, 0.2, "the class class1 has fewer than two images"),
        ([0] * 20 + [1] * 3, [*map(str, range(20)), *"xxx"], 0.2, "class1 has fewer than two dis"),
        ([0, 0, 1, 1, 2, 2], None, 0.2, "0.2 of 6 images leaves no image .* the 3 classes"),
        ([0, 0, 1, 1, 2, 2], None, 0.8, "0.8 of 6 images leaves no image .* the 3 classes"),
    ],
)
def test_a_class_that_cannot_be_on_both_sides_is_refused(labels, fingerprints, fraction, message):
    with pytest.raises(DataError, match=message):
        split(data_set(labels, fingerprints), validation_fraction=fraction, seed=0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.2, float("nan")])
def test_an_impossible_fraction_is_refused(fraction):
    with pytest.raises(ConfigurationError, match="between 0 and 1"):
        split(data_set([0, 1] * 9), validation_fraction=fraction, seed=0)


def test_a_negative_seed_is_refused():
    with pytest.raises(ConfigurationError, match="seed of a split"):
        split(data_set([0, 1] * 9), seed=-1)
