"""Fuzz surfaces of data: CSV files of labels, folders of images, and the images in them."""

import csv
import functools
import io
import json
import zlib
from pathlib import Path
from random import Random

import numpy as np
from fuzz_inputs import any_name, any_text, mutated, place, replace_by_something_odd
from fuzz_trial import Attempt
from PIL import Image

from gradflow.data import Reading, load
from gradflow.data.folders import find_files
from gradflow.data.label_csv import read_labels

SUFFIXES = ("png", "jpg", "gif", "bmp", "ppm", "tif", "webp", "PNG", "txt", "jpg.png")


def make_table(random: Random, scratch: Path) -> Attempt:
    """A CSV file, and all, some or none of the images that it names."""
    content = _table(random)
    place(scratch, "train.csv", content)
    if random.random() < 0.6:
        return Attempt(_shown(content), lambda: read_labels(scratch / "train.csv"))
    inside = random.choice(("", "train/", "other/"))
    for name in ["a.png", "b.png", "c.png", "d.png", any_name(random)]:
        if random.random() < 0.95:
            place(scratch, f"{inside}{name}", b"")
    if random.random() < 0.1:
        replace_by_something_odd(random, scratch / "train.csv", scratch)
    source = random.choice((scratch, scratch / "train.csv"))
    return Attempt(f"files beside {_shown(content)}", lambda: find_files(source))


def _table(random: Random) -> bytes:
    if random.random() < 0.1:
        return random.randbytes(random.randrange(100))
    header = ["filename", "label"]
    if random.random() < 0.2:
        header.insert(random.randrange(3), any_text(random))
    if random.random() < 0.05:
        header[random.randrange(len(header))] = any_text(random)
    tame = random.random() < 0.5  # else hardly one would get past its first rows
    rows = [
        random.choice((["a.png", "x"], ["b.png", "y"], ["c.png", "x"], ["d.png", "y"]))
        if tame or random.random() < 0.5
        else [any_name(random), any_text(random)]
        for _ in range(random.choice((0, 1, 4, 9, 9)))
    ]
    text = io.StringIO(newline="")
    writer = csv.writer(
        text,
        delimiter=random.choice(",,,;;\t\t|"),
        quoting=random.choice((csv.QUOTE_ALL, csv.QUOTE_MINIMAL)),
        lineterminator=random.choice(("\n", "\r\n", "\r")),
    )
    writer.writerows([header, *rows])
    encoding = random.choice(("utf-8",) * 20 + ("utf-8-sig", "utf-16", "latin-1"))
    content = text.getvalue().encode(encoding, errors="replace")
    if random.random() < 0.002:
        content += b'"' * random.randrange(2) + b"a" * random.choice((140_000, 1 << 21))
    return mutated(random, content, _EXAMPLE_TABLES) if random.random() < 0.4 else content


_EXAMPLE_TABLES = (
    b"filename,label\na0.png,x\nb1.png,y\n",
    b'\xef\xbb\xbf"filename";"label"\r\n"a0.png";"x"\r\n',
    b"label\tnote\tfilename\n",
)


def make_images(random: Random, scratch: Path) -> Attempt:
    """Two classes of two images each, or a CSV of four images; some are damaged or oddly named."""
    images = [random.choice(_images()) for _ in range(4)]
    names = [f"{label}/{place}.{random.choice(SUFFIXES[:7])}" for label in "ab" for place in "01"]
    damaged = random.randrange(4)
    images[damaged] = _damaged(random, images[damaged])
    if random.random() < 0.2:
        names[random.randrange(4)] = f"{any_text(random)}/{any_text(random)}.png"
    if random.random() < 0.2:  # a split of its own, perhaps a strange one
        sides = random.choice((("train", "val"), ("train", "test"), ("val", "valid"), ("train",)))
        names = [f"{sides[at % len(sides)]}/{name}" for at, name in enumerate(names)]
        names = [name.replace("1.", "0x.") if random.random() < 0.1 else name for name in names]
    written = [
        path
        for name, content in zip(names, images, strict=True)
        if (path := place(scratch / "images", name, content)) is not None
    ]
    if random.random() < 0.1:
        rows = "".join(f'"{name}",{index % 2}\n' for index, name in enumerate(names))
        place(scratch / "images", "labels.csv", f"filename,label\n{rows}".encode(errors="replace"))
    odd = ""
    if written and random.random() < 0.1:
        odd = replace_by_something_odd(random, random.choice(written), scratch)
    size = random.choice((8, 8, 8, None))
    source = str(scratch / "images") if random.random() < 0.97 else any_text(random)
    words = f"{names}, {names[damaged]} damaged {odd}, size {size}, {source!a}"
    if source in ("digits", "cifar10"):  # neither comes from elsewhere
        source = ""
    reading = Reading(
        random.choice(("auto", "auto", "classes", "split")), {}, random.random() < 0.3
    )
    return Attempt(f"{words}, {reading}", lambda: load(source, image_size=size, reading=reading))


def _damaged(random: Random, content: bytes) -> bytes:
    kind = random.randrange(12)
    if kind == 0:
        return random.randbytes(random.randrange(300))
    if kind == 1:
        return content[:20] + random.randbytes(random.randrange(300))
    if kind == 2:  # the header alone is what decides how much is made room for
        place = random.randrange(min(40, len(content)))
        number = random.choice((0, 1, 255, 4000, 20_000, 65_535, 2**31 - 1))
        changed = number.to_bytes(4, random.choice(("big", "little")))
        return _with_checksums(content[:place] + changed + content[place + 4 :])
    content = mutated(random, content, _images())
    return _with_checksums(content) if random.random() < 0.5 else content


def _with_checksums(content: bytes) -> bytes:
    """`content` with valid checksums of its chunks, if it is a PNG."""
    begin = 8
    while content.startswith(b"\x89PNG") and begin + 12 <= len(content):
        end = begin + 8 + int.from_bytes(content[begin : begin + 4], "big")
        checksum = zlib.crc32(content[begin + 4 : end]).to_bytes(4, "big")
        content = content[:end] + checksum + content[end + 4 :]
        begin = end + 4
    return content


@functools.cache
def _images() -> tuple[bytes, ...]:
    """Small valid images of every format that gradflow reads, in each pixel mode."""
    generator = np.random.default_rng(0)
    color = Image.fromarray(generator.integers(0, 255, (9, 7, 3), dtype=np.uint8))
    deep = Image.fromarray(generator.integers(0, 65_535, (8, 8), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds: list[tuple[Image.Image, str, dict[str, object]]] = [
        (color, "png", {}),
        (color.convert("L"), "png", {"exif": exif}),
        (color.convert("RGBA"), "png", {}),
        (color.convert("P"), "png", {"transparency": bytes(range(200))}),
        (color.convert("1"), "png", {}),
        (deep, "png", {}),
        (deep, "tiff", {}),
        (deep, "ppm", {}),
        (color, "jpeg", {"exif": exif}),
        (color.convert("CMYK"), "jpeg", {"progressive": True}),
        (color, "gif", {"save_all": True, "append_images": [color.rotate(90)]}),
        (color, "bmp", {}),
        (color.convert("P"), "bmp", {}),
        (color.convert("1"), "ppm", {}),
        (color, "webp", {"lossless": True}),
        (color.convert("RGBA"), "webp", {"save_all": True, "append_images": [color.rotate(90)]}),
        (color.convert("CMYK"), "tiff", {"compression": "tiff_lzw"}),
        (color, "tiff", {"compression": "tiff_adobe_deflate", "exif": exif}),
        (color, "tiff", {"compression": "jpeg"}),
        (color.convert("1"), "tiff", {"compression": "group4"}),
        (color.convert("F"), "tiff", {}),
    ]
    encoded = []
    for image, kind, options in kinds:
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        encoded.append(stream.getvalue())
    return tuple(encoded)


def _shown(content: bytes) -> str:
    return json.dumps(content[:300].decode("latin-1"))
