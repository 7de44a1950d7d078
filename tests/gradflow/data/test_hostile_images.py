"""Images that are decompression bombs, damaged, empty, unusual, or links to other places."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gradflow.data import load
from gradflow.data.folders import find_files
from gradflow.data.images import LARGEST_FILE, decode, read_content, read_size
from gradflow.errors import ConfigurationError, DataError

GENERATOR = np.random.default_rng(0)


def encoded(image, kind="png", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def random_pixels(*shape, dtype=np.uint8):
    return GENERATOR.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def chunk(kind, content):
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def png(width, height, rows=b"", *, depth=8, color=2):
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def rgb(decoded):
    return decoded.permute(1, 2, 0).numpy().astype(int)


@pytest.fixture
def folder(tmp_path):
    """Two classes of two images each."""
    root = tmp_path / "images"
    for index, label in enumerate("aabb"):
        (root / label).mkdir(parents=True, exist_ok=True)
        path = root / label / f"{index}.png"
        path.write_bytes(encoded(Image.new("RGB", (4, 4), (50 * index, 0, 0))))
    return root


@pytest.mark.parametrize(("side", "pixels"), [(10_000, "100,000,000"), (50_000, "2,500,000,000")])
def test_a_bomb_is_refused_by_its_header_with_its_size_and_the_limit(folder, side, pixels):
    bomb = folder / "a" / "bomb.png"
    bomb.write_bytes(png(side, side))
    for size in (8, None):
        with pytest.raises(DataError, match=f"bomb.png would have {pixels} pixels, more than the "):
            load(str(folder), image_size=size)
    with pytest.raises(DataError, match="89,478,485 that an image may have"):
        read_size(bomb)


@pytest.mark.parametrize("size", [(65_536, 1), (1, 65_536)])
def test_a_side_too_long_to_decode_in_time_is_refused(tmp_path, size):
    content = encoded(Image.new("RGB", size))
    (tmp_path / "a.png").write_bytes(content)
    message = "a.png has 65,536 pixels on a side, more than the 65,535 that an image may have"
    with pytest.raises(DataError, match=message):
        read_size(tmp_path / "a.png")
    with pytest.raises(DataError, match=message):
        decode(content, tmp_path / "a.png", 4)


def test_the_longest_side_that_may_be_is_decoded(tmp_path):
    assert decode(encoded(Image.new("RGB", (65_535, 1))), tmp_path / "a.png", 4).shape == (3, 4, 4)


def test_a_frame_larger_than_the_header_says_is_a_bomb_too(tmp_path):
    content = bytearray(encoded(Image.new("P", (4, 4)), "gif"))
    at = content.rindex(b",\0\0\0\0")
    content[at + 5 : at + 9] = struct.pack("<HH", 60_000, 60_000)
    with pytest.raises(DataError, match="would have 3,600,000,000 pixels"):
        decode(bytes(content), tmp_path / "a.gif", 4)


def test_a_file_too_large_to_hold_is_refused_unread(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    os.truncate(path, LARGEST_FILE + 1)  # sparse: takes no room
    with pytest.raises(DataError, match=r"a.png has 1,073,741,825 bytes, more than the"):
        read_content(path)


def test_images_that_would_not_fit_into_memory_are_refused_before(folder):
    for source in (str(folder), "digits"):
        with pytest.raises(ConfigurationError, match="more than this machine's memory; choose a"):
            load(source, image_size=10_000_000)


@pytest.mark.parametrize("content", [b"", b"\x89PNG", png(4, 4, b"short"), b"GIF89a" + b"\0" * 9])
def test_zero_bytes_and_truncated_files_are_named(folder, content):
    (folder / "b" / "broken.png").write_bytes(content)
    for size in (4, None):
        with pytest.raises(DataError, match=r"b/broken.png is not a readable image; replace"):
            load(str(folder), image_size=size)


def test_postscript_under_another_name_is_not_given_to_its_interpreter(tmp_path):
    content = encoded(Image.new("RGB", (4, 4)), "eps")
    with pytest.raises(DataError, match="is not a readable image"):
        decode(content, tmp_path / "a.png", 4)


@pytest.mark.parametrize("kind", ["tiff", "jpeg"])
def test_cmyk_is_converted_as_ink_on_white(tmp_path, kind):
    ink = np.repeat(np.repeat(random_pixels(2, 2, 4), 8, 0), 8, 1)
    options = {"quality": 100, "subsampling": 0} if kind == "jpeg" else {}
    content = encoded(Image.fromarray(ink, "CMYK"), kind, **options)
    left = 255 - ink.astype(int)
    expected = left[..., :3] * left[..., 3:] / 255
    found = rgb(decode(content, tmp_path / "a", 16))
    assert np.abs(found - expected).max() <= (6 if kind == "jpeg" else 1)


@pytest.mark.parametrize("kind", ["png", "tiff", "ppm"])
def test_sixteen_bit_gray_keeps_its_upper_eight_bits_rounded(tmp_path, kind):
    pixels = random_pixels(6, 6, dtype=np.uint16)
    found = rgb(decode(encoded(Image.fromarray(pixels), kind), tmp_path / "a", 6))
    expected = np.round(pixels[..., None] * (255 / 65535)).repeat(3, 2)
    np.testing.assert_array_equal(found, expected)


def test_sixteen_bit_color_keeps_its_upper_eight_bits(tmp_path):
    pixels = random_pixels(5, 5, 3, dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    found = rgb(decode(png(5, 5, rows, depth=16), tmp_path / "a", 5))
    assert np.abs(found - pixels / 257).max() <= 1


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_of_32_bits_are_refused(tmp_path, mode):
    with pytest.raises(DataError, match="has 32 bits per pixel, which do not define what is white"):
        decode(encoded(Image.new(mode, (4, 4)), "tiff"), tmp_path / "a.tif", 4)


def test_palette_with_transparency_is_laid_on_white(tmp_path):
    palette, alpha = random_pixels(4, 3), np.array([0, 85, 170, 255])
    places = GENERATOR.integers(0, 4, (6, 6), dtype=np.uint8)
    image = Image.fromarray(places, "L")
    image.putpalette(palette.tobytes())
    content = encoded(image, transparency=bytes(alpha.astype(np.uint8)))
    share = alpha[places][..., None] / 255
    expected = palette[places] * share + 255 * (1 - share)
    assert np.abs(rgb(decode(content, tmp_path / "a", 6)) - expected).max() <= 1


def test_half_transparent_pixels_are_mixed_with_white(tmp_path):
    pixels = random_pixels(6, 6, 4)
    share = pixels[..., 3:] / 255
    expected = pixels[..., :3] * share + 255 * (1 - share)
    found = rgb(decode(encoded(Image.fromarray(pixels, "RGBA")), tmp_path / "a", 6))
    assert np.abs(found - expected).max() <= 1


def test_one_bit_images_are_black_and_white(tmp_path):
    bits = GENERATOR.random((9, 9)) < 0.5
    found = rgb(decode(encoded(Image.fromarray(bits), "tiff"), tmp_path / "a", 9))
    np.testing.assert_array_equal(found, bits[..., None].repeat(3, 2) * 255)


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_the_first_frame_of_an_animation_is_taken(tmp_path, kind):
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "webp" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert rgb(decode(content, tmp_path / "a", 4))[2, 2].tolist() == [255, 0, 0]


# What turns an image as a camera stored it upright, by its EXIF orientation (Exif 2.3, table 6).
UPRIGHT = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_every_exif_orientation_is_turned_upright(tmp_path, orientation):
    pixels = random_pixels(6, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = rgb(decode(encoded(Image.fromarray(pixels), exif=exif), tmp_path / "a", 6))
    np.testing.assert_array_equal(found, UPRIGHT[orientation](pixels))


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\0"])
def test_a_picture_with_damaged_exif_is_taken_as_it_stands(tmp_path, exif):
    content = encoded(Image.new("RGB", (8, 8), (200, 100, 50)), "jpeg", exif=exif, quality=95)
    assert np.abs(rgb(decode(content, tmp_path / "a", 8)) - (200, 100, 50)).max() <= 3


@pytest.mark.parametrize("place", ["a/secret.png", "c"])
def test_a_link_out_of_the_folder_is_refused(folder, tmp_path, place):
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("1.png", "2.png"):
        (outside / name).write_bytes(encoded(Image.new("RGB", (4, 4))))
    target = outside / "1.png" if place.endswith(".png") else outside
    (folder / place).symlink_to(target)
    with pytest.raises(DataError, match=f"images/{place} is a link that leads out of .*images, to"):
        find_files(folder)


def test_a_csv_that_is_a_link_out_is_not_read(folder, tmp_path):
    (tmp_path / "outside.csv").write_text("a secret line")
    (folder / "labels.csv").symlink_to(tmp_path / "outside.csv")
    with pytest.raises(DataError, match=r"labels\.csv is a link that leads out of") as raised:
        find_files(folder)
    assert "secret" not in str(raised.value)


def test_a_csv_cannot_reach_out_by_a_link_either(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "outside.png").write_bytes(encoded(Image.new("RGB", (4, 4))))
    (home / "a.png").symlink_to("../outside.png")
    (home / "train.csv").write_text("filename,label\na.png,x\n")
    with pytest.raises(DataError, match=r"a.png is a link that leads out of .*home, to .*outside"):
        find_files(home)


def test_links_within_the_folder_and_to_it_are_followed_and_rings_end(folder, tmp_path):
    (folder / "a" / "again.png").symlink_to("0.png")
    (folder / "a" / "ring").symlink_to(folder)
    (tmp_path / "link").symlink_to(folder)
    names = [file.name for file in find_files(tmp_path / "link")]
    assert names == ["a/0.png", "a/1.png", "a/again.png", "b/2.png", "b/3.png"]


def test_what_is_not_a_file_is_skipped(folder):
    os.mkfifo(folder / "a" / "pipe.png")
    (folder / "b" / "device.png").symlink_to("/dev/zero")
    (folder / "b" / "nowhere.png").symlink_to("nothing")
    (folder / "b" / "folder.png").mkdir()
    assert len(find_files(folder)) == 4


@pytest.mark.parametrize(
    "name",
    ["it's", '"', "-rf", "a b", "new\nline", "\u6f22\U0001f600", "<b>", "$(x)", "\x1b[31m", "..."],
)
def test_names_are_kept_unchanged(folder, name):
    (folder / name).mkdir()
    for index in range(2):
        content = encoded(Image.new("RGB", (4, 4), (index, 9, 9)))
        (folder / name / f"{name}{index}.png").write_bytes(content)
    if name.startswith("."):
        assert load(str(folder)).classes == ("a", "b")  # hidden
        return
    data = load(str(folder))
    assert set(data.classes) == {"a", "b", name}
    assert f"{name}/{name}1.png" in data.names


def test_a_name_that_is_no_text_shows_its_bytes(folder):
    os.mkdir(os.fsencode(folder) + b"/\xff")  # noqa: PTH102 - a Path is text
    for index in range(2):
        path = os.fsencode(folder) + b"/\xff/%d.png" % index
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(encoded(Image.new("RGB", (4, 4), (index, 9, 9))))
    data = load(str(folder))
    assert data.classes == ("\\xff", "a", "b")
    assert data.names[-1] == "\\xff/1.png"


@pytest.mark.parametrize(
    "source",
    ["", "~nobody-of-this-name/x", "a" * 5000, "b/" * 3000, "a\0b", "~\0", "~a\0/b", "~\ud800"],
)
def test_a_source_that_cannot_be_is_refused_in_a_sentence(source):
    with pytest.raises(DataError, match=r"there is no data set|does not exist|cannot be read"):
        load(source)


def test_an_image_that_rows_of_the_csv_repeat_counts_once_and_that_is_said(folder):
    rows = "a/0.png,x\na/1.png,x\n./a/0.png,x\nb/2.png,y\nb/3.png,y\nb/3.png,y\n"
    (folder / "all.csv").write_text(f"filename,label\n{rows}")
    data = load(str(folder))
    assert (len(data), data.repeated_rows) == (4, 2)


VALID = [
    encoded(Image.fromarray(random_pixels(9, 7, 3)), kind)
    for kind in ("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm")
]


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(VALID),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    st.floats(0, 1),
)
def test_any_damage_leaves_an_image_or_a_refusal(tmp_path_factory, content, bytes_put, kept):
    damaged = bytearray(content)
    for place, value in bytes_put:
        damaged[int(place * len(damaged))] = value
    path = tmp_path_factory.getbasetemp() / "damaged.png"
    try:
        decoded = decode(bytes(damaged[: int(kept * len(damaged))]), path, 5)
    except DataError:
        return
    assert decoded.shape == (3, 5, 5)
    assert decoded.dtype == torch.uint8
