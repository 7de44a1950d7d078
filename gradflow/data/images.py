"""A data set in memory, and how its images are decoded and resized."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2

from gradflow.errors import DataError

# What Pillow raises for files that are truncated, damaged, of another kind, or absurdly large.
DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    Image.DecompressionBombError,
)


@dataclass(frozen=True, eq=False)
class ImageData:
    """A labelled data set, every image decoded once.

    Fields:
        images: uint8 [N, C, H, W], C = 3 in the order red, green, blue, or C = 1.
        labels: int64 [N], indices into `classes`.
        classes: names of the classes, in alphabetical order where the source gives none.
        names: of each image: its path relative to the folder, or its index in the data set.
        fingerprints: SHA-256 of each image's file, or of its pixels where it has no file. Equal
            fingerprints are the same image; an image saved anew counts as another.
        flips: whether an image keeps its label when it is mirrored left to right.
        official_validation: bool [N], true for the images that the publishers of the data set
            reserve for testing; None where they reserve none.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    names: tuple[str, ...]
    fingerprints: tuple[str, ...]
    flips: bool
    official_validation: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)


def read_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, from the file's header.

    Raises:
        DataError: The file is not an image.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except DECODING_ERRORS as error:
        raise _unreadable(path) from error


def decode(content: bytes, path: Path, size: int) -> Tensor:
    """The image in `content`, the bytes of `path`, as uint8 [3, size, size].

    Turned upright as its EXIF orientation says; palettes, CMYK and grayscale converted to RGB;
    transparent pixels on white; of an animation the first frame. Resized bilinearly with
    antialiasing, the aspect ratio not kept.

    Raises:
        DataError: The content is not an image, or a damaged one.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            upright = _to_rgb(ImageOps.exif_transpose(image))
    except DECODING_ERRORS as error:
        raise _unreadable(path) from error
    resized = upright.resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def resize(images: Tensor, size: int) -> Tensor:
    """[N, C, H, W] to [N, C, size, size], bilinearly, with antialiasing where it shrinks."""
    if images.shape[-2:] == (size, size):
        return images
    resized: Tensor = v2.functional.resize(images, [size, size], antialias=True)
    return resized


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16 bits of gray: Pillow's own conversion would clip them at 255
        scaled = np.asarray(image).astype(np.float64) / 257
        return Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _unreadable(path: Path) -> DataError:
    return DataError(f"{path} is not a readable image; replace or remove it")
