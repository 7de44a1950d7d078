"""Loads a data set into memory, by its name or by the path of a folder."""

import difflib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10

from gradflow.data.folders import find_files
from gradflow.data.images import ImageData, decode, read_content, read_size, resize
from gradflow.errors import ConfigurationError, DataError

FOLDER_IMAGE_SIZE = 224


def load(source: str, *, image_size: int | None = None, root: Path = Path("data")) -> ImageData:
    """The data set `source`, with every image decoded to `image_size` x `image_size` pixels.

    Args:
        source: "digits", scikit-learn's 1,797 handwritten digits of 8x8 pixels, which need no
            download; "cifar10", downloaded into `root` if it is missing; or a path. The path is
            that of a folder with one folder per class, of a folder with one CSV (columns filename
            and label) and the images beside it or in a folder beside it, or of that CSV. An image
            that the CSV lists twice with one label counts once.
        image_size: In pixels. None means 32 for digits and cifar10. For a folder it means the
            images' own size if all are square and of one size, otherwise 224.
        root: The folder of downloaded data sets.

    Raises:
        ConfigurationError: `image_size` is less than 1, or so large that the images would not fit
            into this machine's memory.
        DataError: The data set is missing or unusable; see `folders.find_files`.
    """
    if image_size is not None and image_size < 1:
        raise ConfigurationError(f"images need at least 1 pixel a side, not {image_size}")
    if source in NAMED_SOURCES:
        return NAMED_SOURCES[source](image_size or 32, root)
    if not _can_be_a_path(source):
        raise _unknown_source(source)  # expanding ~ would raise an error for such a text
    path = Path(os.path.expanduser(source))  # noqa: PTH111 - leaves an unknown user's ~ as it is
    if not source or (len(path.parts) == 1 and not os.path.lexists(path)):
        raise _unknown_source(source)
    return load_folder(path, image_size)


def _can_be_a_path(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def load_digits_images(image_size: int, root: Path) -> ImageData:
    """The optical digits of Alpaydin and Kaynak (1998) from scikit-learn; gray, C = 1."""
    digits = load_digits()
    _require_memory(len(digits.images), 1, image_size)
    original = torch.from_numpy(digits.images).unsqueeze(1)  # [1797, 1, 8, 8] of 0 to 16
    return ImageData(
        images=resize(original * (255 / 16), image_size).round().to(torch.uint8),
        labels=torch.from_numpy(digits.target).long(),
        classes=tuple(str(name) for name in digits.target_names),
        names=tuple(str(index) for index in range(len(original))),
        fingerprints=_pixel_fingerprints(digits.images.astype(np.uint8)),
        flips=False,
    )


def load_cifar10(image_size: int, root: Path) -> ImageData:
    """CIFAR-10 (Krizhevsky 2009): 50,000 training images, then the 10,000 official test images."""
    try:
        subsets = [CIFAR10(str(root), train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"CIFAR-10 is not in {root} and cannot be downloaded; "
            "connect to the internet or put cifar-10-batches-py there"
        ) from error
    original = np.concatenate([subset.data for subset in subsets])  # uint8 [60000, 32, 32, 3]
    _require_memory(len(original), 3, image_size)
    return ImageData(
        images=resize(torch.from_numpy(original).permute(0, 3, 1, 2).contiguous(), image_size),
        labels=torch.tensor([label for subset in subsets for label in subset.targets]),
        classes=tuple(subsets[0].classes),
        names=tuple(str(index) for index in range(len(original))),
        fingerprints=_pixel_fingerprints(original),
        flips=True,
        official_validation=torch.arange(len(original)) >= len(subsets[0].data),
    )


def load_folder(path: Path, image_size: int | None) -> ImageData:
    """The images of a folder or CSV; see `load`."""
    files = find_files(path)
    size = image_size or _common_size([file.path for file in files])
    _require_memory(len(files), 3, size)
    classes = tuple(sorted({file.label for file in files}))
    labels = {name: index for index, name in enumerate(classes)}
    images = torch.empty((len(files), 3, size, size), dtype=torch.uint8)
    fingerprints = []
    for image, file in zip(images, files, strict=True):
        content = read_content(file.path)
        image.copy_(decode(content, file.path, size))
        fingerprints.append(hashlib.sha256(content).hexdigest())
    return ImageData(
        images=images,
        labels=torch.tensor([labels[file.label] for file in files]),
        classes=classes,
        names=tuple(file.name for file in files),
        fingerprints=tuple(fingerprints),
        flips=True,
        repeated_rows=sum(file.rows - 1 for file in files),
    )


NAMED_SOURCES: dict[str, Callable[[int, Path], ImageData]] = {
    "digits": load_digits_images,
    "cifar10": load_cifar10,
}


def _require_memory(images: int, channels: int, size: int) -> None:
    """Make sure that the images, one byte per value, fit into this machine's memory."""
    needed = images * channels * size * size
    if needed > _memory():
        raise ConfigurationError(
            f"{images:,} images of {size} x {size} pixels take {needed // 10**9:,} GB, more than "
            "this machine's memory; choose a smaller --image-size"
        )


def _memory() -> float:
    """The bytes of memory of this machine; infinity if it does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows; systems without these names
        return float("inf")


def _pixel_fingerprints(images: np.ndarray) -> tuple[str, ...]:
    return tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in images)


def _common_size(paths: list[Path]) -> int:
    """The side of the images in pixels if all are square and of one size, otherwise 224."""
    sizes = {read_size(path) for path in paths}
    width, height = next(iter(sizes))
    return width if len(sizes) == 1 and width == height else FOLDER_IMAGE_SIZE


def _unknown_source(source: str) -> DataError:
    close = difflib.get_close_matches(source, NAMED_SOURCES, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return DataError(
        f"there is no data set and no folder called {source!r}{hint}; "
        f"use {', '.join(NAMED_SOURCES)} or the path of a folder of images"
    )
