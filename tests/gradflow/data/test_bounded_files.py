"""Image files made to decode very slowly are refused at once."""

import io
import struct
import zlib

import pytest
from PIL import Image

from gradflow.data import bounded_files
from gradflow.data.bounded_files import BoundedFile, TooMuchToDecodeError, require_few_scans
from gradflow.data.images import decode, read_size
from gradflow.errors import DataError


def saved(form, **options):
    stream = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(stream, form, **options)
    return stream.getvalue()


def notes_without_end():
    """A JPEG whose comments Pillow joins again for each one: time grows with their square."""
    note = b"\xff\xe1" + struct.pack(">H", 65_002) + b"Exif\0\0II*\0" + bytes(64_990)
    whole = saved("JPEG")
    return whole[:2] + note * 300 + whole[2:]


def comment_without_end():
    return b"P6\n#" + b"a" * (1 << 21) + b"\n1 1\n255\nabc"


def pieces_without_end():
    whole = saved("PNG")
    piece = struct.pack(">I", 0) + b"prVt" + struct.pack(">I", zlib.crc32(b"prVt"))
    return whole[:33] + piece * 400_000 + whole[33:]


@pytest.mark.parametrize("make", [notes_without_end, comment_without_end, pieces_without_end])
def test_endless_metadata_is_refused(tmp_path, make):
    path = tmp_path / "image.png"
    path.write_bytes(make())
    with pytest.raises(DataError, match="holds far more data than its pixels"):
        read_size(path)
    with pytest.raises(DataError, match="holds far more data than its pixels"):
        decode(path.read_bytes(), path, 8)


def with_scans(count):
    """A progressive JPEG with `count` more scans than it needs."""
    whole = saved("JPEG", progressive=True)
    begin = whole.index(b"\xff\xda")
    end = whole.index(b"\xff", begin + 2)
    while whole[end + 1] in (0, *range(0xD0, 0xD8)):
        end = whole.index(b"\xff", end + 2)
    return whole[:end] + whole[begin:end] * count + whole[end:]


def test_too_many_scans_are_refused(tmp_path):
    with pytest.raises(DataError, match="or too many scans"):
        decode(with_scans(bounded_files.MAX_SCANS), tmp_path / "image.jpg", 8)


def test_scans_after_a_picture_do_not_count():
    require_few_scans(saved("JPEG", progressive=True) + b"\xff\xda\0\2" * 1000)


def test_a_small_picture_within_the_notes_does_not_count():
    thumbnail = with_scans(bounded_files.MAX_SCANS)[:65_000]
    note = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = saved("JPEG")
    require_few_scans(whole[:2] + note + whole[2:])


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "jpeg"}),
        ("TIFF", {}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("PPM", {}),
    ],
)
def test_usual_files_are_decoded(tmp_path, form, options):
    path = tmp_path / "image"
    path.write_bytes(saved(form, **options))
    assert read_size(path) == (64, 64)
    assert decode(path.read_bytes(), path, 8)[:, 4, 4].tolist()[0] > 250


def test_pixels_may_be_many(monkeypatch):
    monkeypatch.setattr(bounded_files, "MAX_HEADER_BYTES", 4)
    file = BoundedFile(io.BytesIO(bytes(100)))
    file.read(4)
    file.end_of_header()
    assert len(file.read(50)) == 50
    with pytest.raises(TooMuchToDecodeError):
        BoundedFile(io.BytesIO(bytes(100))).read(5)
