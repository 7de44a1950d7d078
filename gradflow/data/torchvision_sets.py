"""Loads a data set of torchvision that is on the disk already, by its name. Nothing is downloaded.

torchvision:MNIST            in the folder data
torchvision:MNIST@~/images   in another folder, torchvision's `root`
"""

import difflib
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image

from gradflow.data.images import ImageData, to_rgb
from gradflow.errors import ConfigurationError, DataError

PREFIX = "torchvision:"


@dataclass(frozen=True)
class _Published:
    """How a data set is published.

    Fields:
        sides: the argument and its values for training and validation; None without a split.
        side: the side of its images in pixels; 224 stands for images of many sizes.
        gray: whether its images have one channel.
        flips: whether an image keeps its label when it is mirrored.
    """

    sides: tuple[str, Any, Any] | None
    side: int = 224
    gray: bool = False
    flips: bool = True


_TRAIN, _TRAIN_TEST = ("train", True, False), ("split", "train", "test")
_TRAIN_VAL, _TRAINVAL_TEST = ("split", "train", "val"), ("split", "trainval", "test")
PUBLISHED: dict[str, _Published] = {
    "CIFAR10": _Published(_TRAIN, 32),
    "CIFAR100": _Published(_TRAIN, 32),
    "Caltech101": _Published(None),
    "Country211": _Published(("split", "train", "valid")),
    "DTD": _Published(_TRAIN_VAL),
    "EuroSAT": _Published(None, 64),
    "FGVCAircraft": _Published(_TRAINVAL_TEST),
    "FashionMNIST": _Published(_TRAIN, 28, gray=True),
    "Flowers102": _Published(_TRAIN_VAL),
    "Food101": _Published(_TRAIN_TEST),
    "GTSRB": _Published(_TRAIN_TEST, flips=False),
    "Imagenette": _Published(_TRAIN_VAL),
    "KMNIST": _Published(_TRAIN, 28, gray=True, flips=False),
    "MNIST": _Published(_TRAIN, 28, gray=True, flips=False),
    "OxfordIIITPet": _Published(_TRAINVAL_TEST),
    "STL10": _Published(_TRAIN_TEST, 96),
    "SUN397": _Published(None),
    "SVHN": _Published(_TRAIN_TEST, 32, flips=False),
    "USPS": _Published(_TRAIN, 16, gray=True, flips=False),
}


def load_torchvision(
    source: str,
    image_size: int | None,
    root: Path,
    require_memory: Callable[[int, int, int], None],
) -> ImageData:
    """The data set `torchvision:NAME` or `torchvision:NAME@FOLDER`; see `sources.load`.

    Args:
        source: The name, as above.
        image_size: The side of the images in pixels; None for that of the data set, or 224.
        root: The folder in which it is if `source` names none.
        require_memory: Is called with the number of images, their channels and their side.

    Raises:
        DataError: torchvision has no such data set, or it is not in the folder, or is damaged.
    """
    name, _, given = source.removeprefix(PREFIX).partition("@")
    published = PUBLISHED.get(name)
    if published is None:
        close = difflib.get_close_matches(name, PUBLISHED, n=1, cutoff=0.4)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise DataError(
            f"{PREFIX}{name} is none of torchvision's data sets of labelled images{hint}; use one "
            f"of {', '.join(PUBLISHED)}"
        )
    folder = Path(os.path.expanduser(given)) if given else root  # noqa: PTH111
    try:
        subsets = _subsets(getattr(torchvision.datasets, name), published, folder)
        size = image_size or published.side
        require_memory(sum(map(len, subsets)), 1 if published.gray else 3, size)
        return _read(subsets, published, size)
    except ConfigurationError:
        raise
    except Exception as error:  # each data set raises errors of its own for what is missing
        raise DataError(
            f"torchvision's {name} is not in {folder}, or is damaged, and nothing is downloaded "
            f"by itself; get it with torchvision.datasets.{name}({str(folder)!r}, download=True), "
            f"or name its folder: {PREFIX}{name}@FOLDER"
        ) from error


def _subsets(kind: Any, published: _Published, folder: Path) -> list[Any]:
    if published.sides is None:
        return [kind(str(folder), download=False)]
    argument, *values = published.sides
    return [kind(str(folder), download=False, **{argument: value}) for value in values]


def _read(subsets: list[Any], published: _Published, size: int) -> ImageData:
    total = sum(map(len, subsets))
    images = torch.empty((total, 1 if published.gray else 3, size, size), dtype=torch.uint8)
    labels, fingerprints = [], []
    for into, (image, label) in zip(images, (item for one in subsets for item in one), strict=True):
        pixels = image.convert("L") if published.gray else to_rgb(image)
        fingerprints.append(hashlib.sha256(repr(pixels.size).encode() + pixels.tobytes()))
        resized = np.array(pixels.resize((size, size), Image.Resampling.BILINEAR))
        into.copy_(torch.from_numpy(resized.reshape(size, size, -1)).permute(2, 0, 1))
        labels.append(int(label))
    return ImageData(
        images=images,
        labels=torch.tensor(labels),
        classes=_classes(subsets[0], labels),
        names=tuple(map(str, range(total))),
        fingerprints=tuple(digest.hexdigest() for digest in fingerprints),
        flips=published.flips,
        official_validation=(
            torch.arange(total) >= len(subsets[0]) if published.sides is not None else None
        ),
        notes=("the published split is used",) if published.sides is not None else (),
    )


def _classes(subset: Any, labels: list[int]) -> tuple[str, ...]:
    """The names of the classes, or their numbers if torchvision does not name each."""
    names = getattr(subset, "classes", None) or getattr(subset, "categories", None)
    count = max(labels) + 1
    if isinstance(names, list | tuple) and len(names) == count:
        return tuple(name if isinstance(name, str) else ", ".join(name) for name in names)
    return tuple(map(str, range(count)))
