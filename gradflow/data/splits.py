"""The stratified, seeded split into training and validation; no image is on both sides."""

import math
from dataclasses import dataclass

import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from gradflow.data.images import ImageData
from gradflow.errors import ConfigurationError, DataError
from gradflow.seeding import derived_seed


@dataclass(frozen=True, eq=False)
class Split:
    """Indices into the data set, int64 and ascending: `training` [T] and `validation` [V]."""

    training: Tensor
    validation: Tensor


@dataclass(frozen=True)
class Duplicates:
    """Byte-identical images in a data set.

    Fields:
        distinct: the number of different images.
        conflicts: for each image that occurs with several labels, the names of its copies.
    """

    distinct: int
    conflicts: tuple[tuple[str, ...], ...]


def find_duplicates(data: ImageData) -> Duplicates:
    """The byte-identical images of `data`, by their fingerprints."""
    groups = _groups_of_identical_images(data)
    labels = data.labels.tolist()
    conflicts = tuple(
        tuple(data.names[index] for index in group)
        for group in groups
        if len({labels[index] for index in group}) > 1
    )
    return Duplicates(len(groups), conflicts)


def split(data: ImageData, *, validation_fraction: float = 0.2, seed: int) -> Split:
    """Put every image on exactly one side, with the classes in proportion on both sides.

    scikit-learn's stratified split gives the number of validation images of each class; it is at
    least one. Images are drawn in groups of identical fingerprints, so that no image is on both
    sides. If no selection of groups gives a class's number exactly, it gets fewer images; if every
    group is larger than the number, it gets the smallest group. An image with several labels stays
    on one side and counts for its first label; `find_duplicates` names such images.

    A published split, by an official validation set or by the folders of the source, is used as it
    is; fraction, seed and fingerprints are ignored.

    Args:
        data: The data set.
        validation_fraction: The share of validation images among all, between 0 and 1.
        seed: Determines which images validate, 0 to 2**32 - 1.

    Raises:
        ConfigurationError: The fraction or the seed is out of range.
        DataError: A class cannot be on both sides.
    """
    if not 0 < validation_fraction < 1:
        raise ConfigurationError(
            f"the validation fraction must be between 0 and 1, not {validation_fraction}"
        )
    if not 0 <= seed < 2**32:
        raise ConfigurationError(f"the seed of a split must be from 0 to 2**32 - 1, not {seed}")
    if data.official_validation is None:
        groups = _groups_of_identical_images(data)
        validates = _draw(data, groups, validation_fraction, seed)
    else:
        validates = data.official_validation
    drawn = Split(torch.nonzero(~validates).flatten(), torch.nonzero(validates).flatten())
    _require_every_class(data, drawn)
    return drawn


def _groups_of_identical_images(data: ImageData) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for index, fingerprint in enumerate(data.fingerprints):
        groups.setdefault(fingerprint, []).append(index)
    return list(groups.values())


def _draw(
    data: ImageData, groups: list[list[int]], validation_fraction: float, seed: int
) -> Tensor:
    """Whether each image validates, bool [N]."""
    labels = data.labels.clone()
    for group in groups:
        labels[group] = int(labels[group[0]])
    counts = _validation_counts(data, labels, validation_fraction, seed)
    generator = torch.Generator().manual_seed(derived_seed(seed, "split"))
    order = torch.randperm(len(groups), generator=generator).tolist()
    validates = torch.zeros(len(data), dtype=torch.bool)
    for label, name in enumerate(data.classes):
        candidates = [groups[place] for place in order if labels[groups[place][0]] == label]
        if len(candidates) < 2:
            raise DataError(
                f"the class {name} has fewer than two distinct images; "
                "add some, because training and validation need one each"
            )
        for group in _fill(candidates, counts[label]):
            validates[group] = True
    return validates


def _fill(groups: list[list[int]], count: int) -> list[list[int]]:
    """Take each group that still fits into `count` images; the smallest group if none fits."""
    chosen = []
    for group in groups:
        if len(group) <= count:
            chosen.append(group)
            count -= len(group)
    return chosen or [min(groups, key=len)]


def _validation_counts(
    data: ImageData, labels: Tensor, validation_fraction: float, seed: int
) -> list[int]:
    """The number of validation images of each class, never all of its images."""
    validating = math.ceil(validation_fraction * len(data))  # as scikit-learn rounds
    classes = len(data.classes)
    if min(validating, len(data) - validating) < classes:
        raise DataError(
            f"a validation fraction of {validation_fraction} of {len(data)} images leaves no "
            f"image on both sides for each of the {classes} classes; "
            "add images or choose a fraction nearer to 0.5"
        )
    available = torch.bincount(labels, minlength=classes)
    if int(available.min()) < 2:
        raise DataError(
            f"the class {data.classes[int(available.argmin())]} has fewer than two images; "
            "add some, because training and validation need one each"
        )
    _, validation = train_test_split(
        labels.numpy(), test_size=validating, stratify=labels.numpy(), random_state=seed
    )
    counts = torch.bincount(torch.from_numpy(validation), minlength=classes)
    return counts.minimum(available - 1).tolist()


def _require_every_class(data: ImageData, drawn: Split) -> None:
    remedy = (
        "add images of it or choose a validation fraction nearer to 0.5"
        if data.official_validation is None
        else "add images of it to that side of the split, or remove the class from the other"
    )
    for side, indices in (("training", drawn.training), ("validation", drawn.validation)):
        counts = torch.bincount(data.labels[indices], minlength=len(data.classes))
        if int(counts.min()) == 0:
            raise DataError(
                f"no {side} image belongs to the class {data.classes[int(counts.argmin())]}; "
                f"{remedy}"
            )
