"""A data set in memory, and the decoding and resizing of its images."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2

from gradflow.data.bounded_files import BoundedFile, TooMuchToDecodeError, require_few_scans
from gradflow.errors import DataError

# Pillow knows more formats, e.g. PostScript, for which it would start another program.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# In bytes. An image may have at most `Image.MAX_IMAGE_PIXELS` pixels, 89 million: a quarter GiB.
LARGEST_FILE = 1 << 30
# In pixels: JPEG's own limit. Pillow decodes rows of millions of pixels in quadratic time.
LONGEST_SIDE = 65_535
# From this ratio of class sizes on, accuracy alone can mislead: of two classes, always answering
# the larger one is right for 60 percent of the images.
IMBALANCE = 1.5


@dataclass(frozen=True, eq=False)
class ImageData:
    """A labelled data set with all images decoded.

    Fields:
        images: uint8 [N, C, H, W], C = 3 in the order red, green, blue, or C = 1.
        labels: int64 [N], indices into `classes`.
        classes: names of the classes, in alphabetical order unless the source has an order.
        names: for each image its path relative to the folder, or its index in the data set.
        fingerprints: SHA-256 of each image's file, or of its pixels if it has no file. Images with
            equal fingerprints are identical; an image that was saved again counts as another.
        flips: whether an image keeps its label when it is mirrored left to right.
        official_validation: bool [N], true for the images that the publishers of the data set
            reserve for testing; None if they reserve none.
        repeated_rows: how many rows of a CSV name an image that an earlier row already named.
        notes: sentences about how the source was read and what was left out.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    names: tuple[str, ...]
    fingerprints: tuple[str, ...]
    flips: bool
    official_validation: Tensor | None = None
    repeated_rows: int = 0
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def class_counts(self) -> list[int]:
        """The number of images of each class."""
        counts: list[int] = torch.bincount(self.labels, minlength=len(self.classes)).tolist()
        return counts

    @property
    def imbalanced(self) -> bool:
        """Whether the largest class has at least `IMBALANCE` times as many images as another."""
        return max(self.class_counts) >= IMBALANCE * min(self.class_counts)


def read_content(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        DataError: It cannot be read, or has more than `LARGEST_FILE` bytes.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise DataError(
                f"{path} has {size:,} bytes, more than the {LARGEST_FILE:,} that an image may "
                "have; make it smaller or remove it"
            )
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); check its permissions"
        ) from error


def read_size(path: Path, content: bytes | None = None) -> tuple[int, int]:
    """Width and height in pixels, from the header of the file, or of its `content`.

    Raises:
        DataError: The file is not an image, or has too many pixels in total or on a side.
    """
    with (
        _naming_in_errors(path),
        path.open("rb") if content is None else io.BytesIO(content) as file,
        _opened(BoundedFile(file)) as image,
    ):
        _require_sides(image, path)
        return image.size


def decode(content: bytes, path: Path, size: int) -> Tensor:
    """The image in `content`, the bytes of `path`, as uint8 [3, size, size].

    The image is turned upright by its EXIF orientation. Palettes, CMYK and grayscale are converted
    to RGB, and transparent pixels are laid on white. 16-bit values keep their upper 8 bits. Of an
    animation the first frame is taken. Resizing is bilinear with antialiasing and does not keep
    the aspect ratio.

    Raises:
        DataError: The content is not an image, is damaged, has too many pixels in total or on a
            side, or has 32-bit pixels, whose brightness is not defined.
    """
    file = BoundedFile(io.BytesIO(content))
    with _naming_in_errors(path), _opened(file) as image:
        _require_sides(image, path)
        require_few_scans(content)
        file.end_of_header()
        image.load()
        if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
            raise DataError(
                f"{path} has 32 bits per pixel, which do not define what is white; "
                "save it with 8 or 16 bits"
            )
        resized = to_rgb(_upright(image)).resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def resize(images: Tensor, size: int) -> Tensor:
    """[N, C, H, W] to [N, C, size, size], bilinearly, with antialiasing when shrinking."""
    if images.shape[-2:] == (size, size):
        return images
    resized: Tensor = v2.functional.resize(images, [size, size], antialias=True)
    return resized


def _opened(file: BoundedFile) -> Image.Image:
    return Image.open(cast("BinaryIO", file), formats=FORMATS)


@contextmanager
def _naming_in_errors(path: Path) -> Iterator[None]:
    """Turns any error with the image at `path` into a `DataError` that names it."""
    bomb = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        with warnings.catch_warnings():
            # Pillow's other warnings do not matter for training.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except DataError:
        raise
    except TooMuchToDecodeError as error:
        raise DataError(
            f"{path} holds far more data than its pixels, or too many scans; save it again "
            "or remove it"
        ) from error
    except bomb as error:
        found = re.search(r"\d+", str(error))
        pixels = f"{int(found[0]):,} pixels" if found else "too many pixels"
        raise DataError(
            f"{path} would have {pixels}, more than the {Image.MAX_IMAGE_PIXELS or 0:,} that an "
            "image may have; make it smaller or remove it"
        ) from error
    except Exception as error:  # a damaged file makes a decoder raise anything
        raise DataError(f"{path} is not a readable image; replace or remove it") from error


def _require_sides(image: Image.Image, path: Path) -> None:
    if max(image.size) > LONGEST_SIDE:
        raise DataError(
            f"{path} has {max(image.size):,} pixels on a side, more than the {LONGEST_SIDE:,} that "
            "an image may have; make it smaller or remove it"
        )


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data; the pixels are intact
        return image


def to_rgb(image: Image.Image) -> Image.Image:
    """`image` with red, green and blue; transparent pixels are laid on white."""
    if image.mode.startswith("I"):
        # 16 bits of gray: Pillow's own conversion would clip them at 255
        scaled = np.asarray(image).astype(np.float32) / 257
        return Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")
