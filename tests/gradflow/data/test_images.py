"""Decoding real files of every kind that Pillow writes."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gradflow.data.images import decode, read_size, resize
from gradflow.errors import DataError

PATH = Path("picture.png")


def encoded(image: Image.Image, suffix: str = "png", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, suffix, **options)
    return stream.getvalue()


def test_an_rgb_image_of_the_right_size_is_taken_pixel_by_pixel():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    decoded = decode(encoded(Image.fromarray(pixels)), PATH, 5)
    assert decoded.dtype == torch.uint8
    np.testing.assert_array_equal(decoded.permute(1, 2, 0).numpy(), pixels)


def test_the_aspect_ratio_is_not_kept():
    image = Image.new("RGB", (40, 10), (255, 0, 0))
    image.paste((0, 0, 255), (20, 0, 40, 10))
    decoded = decode(encoded(image), PATH, 10)
    assert decoded.shape == (3, 10, 10)
    assert decoded[0, :, 0].eq(255).all()
    assert decoded[2, :, -1].eq(255).all()


def test_exif_orientation_is_respected():
    image = Image.new("RGB", (16, 16), "black")
    image.paste("white", (0, 0, 16, 8))  # the upper half
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: the top belongs to the right
    decoded = decode(encoded(image, "jpeg", exif=exif, quality=95), PATH, 16).float()
    assert decoded[:, :, 12:].mean() > 240
    assert decoded[:, :, :4].mean() < 15


@pytest.mark.parametrize(
    ("image", "suffix", "expected"),
    [
        (Image.new("L", (4, 4), 90), "png", (90, 90, 90)),
        (Image.new("1", (4, 4), 1), "png", (255, 255, 255)),
        (Image.new("RGB", (4, 4), (200, 40, 0)).quantize(4), "png", (200, 40, 0)),
        (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "tiff", (255, 0, 0)),
        (Image.new("RGBA", (4, 4), (10, 20, 30, 255)), "png", (10, 20, 30)),
        (Image.new("RGBA", (4, 4), (10, 20, 30, 0)), "png", (255, 255, 255)),
        (Image.new("LA", (4, 4), (10, 0)), "png", (255, 255, 255)),
        (Image.fromarray(np.full((4, 4), 100 * 257, np.uint16)), "png", (100, 100, 100)),
    ],
    ids=["gray", "bilevel", "palette", "cmyk", "opaque", "transparent", "gray-alpha", "16-bit"],
)
def test_every_mode_becomes_rgb(image, suffix, expected):
    decoded = decode(encoded(image, suffix), PATH, 4)
    assert decoded[:, 1, 2].tolist() == list(expected)


def test_a_transparent_palette_color_becomes_white():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([9, 9, 9, 50, 60, 70])
    image.putpixel((0, 0), 1)
    decoded = decode(encoded(image, "png", transparency=bytes([0, 255])), PATH, 4)
    assert decoded[:, 0, 0].tolist() == [50, 60, 70]
    assert decoded[:, 2, 2].tolist() == [255, 255, 255]


def test_a_damaged_image_is_refused_by_name():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for suffix in ("png", "jpeg"):
        whole = encoded(Image.fromarray(pixels), suffix)
        for content in (whole[: len(whole) // 2], b"", b"not an image", whole[:12]):
            with pytest.raises(DataError, match=r"^dir/broken.jpg is not a readable image; "):
                decode(content, Path("dir/broken.jpg"), 8)


def test_the_size_is_read_from_the_header(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.new("RGB", (7, 3))))
    assert read_size(path) == (7, 3)
    path.write_bytes(b"text")
    with pytest.raises(DataError, match=r"a.png is not a readable image"):
        read_size(path)


def test_resizing_doubles_by_hand_computed_bilinear_weights():
    row = torch.tensor([0.0, 100.0]).expand(1, 1, 2, 2)
    # pixel centres: 1/4, 3/4 of the way between neighbours, held constant beyond the edge
    assert resize(row, 4)[0, 0, 1].tolist() == pytest.approx([0, 25, 75, 100])
