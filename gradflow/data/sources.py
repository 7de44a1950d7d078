"""Loads a data set into memory, by its name or by the path of a folder."""

import difflib
import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10

from gradflow.data.folders import find_files, require_classes
from gradflow.data.images import ImageData, decode, read_content, read_size, resize
from gradflow.data.labelled_files import LabelledFile, Reading
from gradflow.data.notes import NAMES_SHOWN, Notes, shown
from gradflow.data.torchvision_sets import PREFIX, load_torchvision
from gradflow.errors import ConfigurationError, DataError

FOLDER_IMAGE_SIZE = 224


def load(
    source: str,
    *,
    image_size: int | None = None,
    root: Path = Path("data"),
    reading: Reading | None = None,
) -> ImageData:
    """The data set `source`, with every image decoded to `image_size` x `image_size` pixels.

    Args:
        source: "digits", scikit-learn's 1,797 handwritten digits of 8x8 pixels, which need no
            download; "cifar10", downloaded into `root` if it is missing; "torchvision:NAME", a
            data set of torchvision that is in `root`, or in FOLDER with
            "torchvision:NAME@FOLDER"; or the path of a folder, CSV, JSONL or Parquet file (see
            `folders.find_files`). An image that a table lists twice with one label counts once.
        image_size: In pixels. None means 32 for digits and cifar10. For a folder it means the
            images' own size if all are square and of one size, otherwise 224.
        root: The folder of downloaded data sets.
        reading: How a folder or table is to be read; see `Reading`.

    If a folder or table makes its own split, an image of its training side that is byte-identical
    to one of its validation side is left out, so that no network is trained on what validates it.

    Raises:
        ConfigurationError: `image_size` is less than 1, or so large that the images would not fit
            into this machine's memory.
        DataError: The data set is missing or unusable; see `folders.find_files`.
    """
    if image_size is not None and image_size < 1:
        raise ConfigurationError(f"images need at least 1 pixel a side, not {image_size}")
    if source in NAMED_SOURCES:
        return NAMED_SOURCES[source](image_size or 32, root)
    if source.startswith(PREFIX):
        data = load_torchvision(source, image_size, root, _require_memory)
        return replace(data, notes=(*data.notes, *_copies_on_both_sides(data)))
    if not _can_be_a_path(source):
        raise _unknown_source(source)  # expanding ~ would raise an error for such a text
    path = Path(os.path.expanduser(source))  # noqa: PTH111 - leaves an unknown user's ~ as it is
    if not source or (len(path.parts) == 1 and not os.path.lexists(path)):
        raise _unknown_source(source)
    return load_folder(path, image_size, reading or Reading())


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
        notes=("the published split is used",),
    )


def load_folder(path: Path, image_size: int | None, reading: Reading) -> ImageData:
    """The images of a folder or table; see `load`."""
    notes = Notes(reading.skip_bad)
    files = find_files(path, reading, notes)
    files, size = _readable(files, image_size, notes)
    _require_memory(len(files), 3, size)
    images = torch.empty((len(files), 3, size, size), dtype=torch.uint8)
    fingerprints: list[str | None] = []
    for image, file in zip(images, files, strict=True):
        try:
            content = file.content if file.content is not None else read_content(file.path)
            image.copy_(decode(content, file.path, size))
            fingerprints.append(hashlib.sha256(content).hexdigest())
        except DataError as error:
            notes.bad(_UNREADABLE, file.name, str(error))
            fingerprints.append(None)
    notes.settle()
    left_out = _trained_copies(files, fingerprints, notes)
    kept = [at for at, digest in enumerate(fingerprints) if digest and at not in left_out]
    if len(kept) < len(files):
        files = [files[at] for at in kept]
        images = images[kept]
        require_classes(files, path)
    classes = tuple(sorted({file.label for file in files}))
    labels = {name: index for index, name in enumerate(classes)}
    validates = [file.side == "validation" for file in files]
    return ImageData(
        images=images,
        labels=torch.tensor([labels[file.label] for file in files]),
        classes=classes,
        names=tuple(file.name for file in files),
        fingerprints=tuple(fingerprints[at] or "" for at in kept),
        flips=True,
        official_validation=torch.tensor(validates) if any(validates) else None,
        repeated_rows=sum(file.rows - 1 for file in files),
        notes=tuple(notes.said),
    )


_UNREADABLE = "images that cannot be read"


def _readable(
    files: list[LabelledFile], image_size: int | None, notes: Notes
) -> tuple[list[LabelledFile], int]:
    """The files and the side to which they are to be resized: `image_size`, or their common side.

    Without `image_size`, the headers are read, and files without a valid one are left out.
    """
    if image_size is not None:
        return files, image_size
    readable, sizes = [], set()
    for file in files:
        try:
            sizes.add(read_size(file.path, file.content))
            readable.append(file)
        except DataError as error:
            notes.bad(_UNREADABLE, file.name, str(error))
    width, height = next(iter(sizes), (FOLDER_IMAGE_SIZE, FOLDER_IMAGE_SIZE))
    return readable, width if len(sizes) == 1 and width == height else FOLDER_IMAGE_SIZE


def _trained_copies(
    files: list[LabelledFile], fingerprints: list[str | None], notes: Notes
) -> set[int]:
    """The training images of a source's own split that are also validation images."""
    validating = {
        digest: file.name
        for file, digest in zip(files, fingerprints, strict=True)
        if file.side == "validation" and digest
    }
    copies = [
        at
        for at, (file, digest) in enumerate(zip(files, fingerprints, strict=True))
        if file.side == "training" and digest in validating
    ]
    if copies:
        pairs = [
            f"{files[at].name} = {validating[fingerprints[at] or '']}"
            for at in copies[:NAMES_SHOWN]
        ]
        notes.say(
            "warning, training images that are also validation images, byte for byte: "
            f"{len(copies):,} ({shown(pairs, len(copies))}); they are left out of the training"
        )
    return set(copies)


def _copies_on_both_sides(data: ImageData) -> list[str]:
    """A warning if a published split has an image on both sides; the split stays as published."""
    if data.official_validation is None:
        return []
    validates = data.official_validation.tolist()
    sides: dict[bool, set[str]] = {True: set(), False: set()}
    for digest, side in zip(data.fingerprints, validates, strict=True):
        sides[side].add(digest)
    both = len(sides[True] & sides[False])
    return (
        [f"warning, images on both sides of the published split, which is kept: {both:,}"]
        if both
        else []
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


def _unknown_source(source: str) -> DataError:
    close = difflib.get_close_matches(source, NAMED_SOURCES, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return DataError(
        f"there is no data set and no folder called {source!r}{hint}; "
        f"use {', '.join(NAMED_SOURCES)}, {PREFIX}NAME or the path of a folder of images"
    )
