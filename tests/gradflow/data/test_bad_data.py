"""Bad rows, images that do not open, classes without images: counted, named, left out if asked."""

import json

import pytest
from PIL import Image

from gradflow.data import Reading, load
from gradflow.data.notes import Notes
from gradflow.errors import DataError


def picture(path, red):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (red, 0, 0)).save(path)


@pytest.fixture
def folder(tmp_path):
    for number in range(12):
        picture(tmp_path / "images" / "ab"[number % 2] / f"{number}.png", number)
    return tmp_path / "images"


def read(folder, skip=False, image_size=8):
    return load(str(folder), image_size=image_size, reading=Reading(skip_bad=skip))


@pytest.mark.parametrize("image_size", [None, 8])
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", None])
def test_images_that_do_not_open_are_counted_and_left_out_if_asked(folder, content, image_size):
    broken = [folder / name for name in ("a/0.png", "a/2.png", "b/1.png", "b/3.png", "b/5.png")]
    for path in broken:
        path.write_bytes(path.read_bytes()[:45] if content is None else content)
    with pytest.raises(DataError, match=r"^images that cannot be read: 5 \(a/0.png, ") as raised:
        read(folder, image_size=image_size)
    assert str(raised.value) == (
        "images that cannot be read: 5 (a/0.png, a/2.png, b/1.png and 2 more); "
        "correct them, or leave them out with --on-bad-data skip"
    )
    data = read(folder, skip=True, image_size=image_size)
    assert data.images.shape == (7, 3, 8, 8)
    assert data.class_counts == [4, 3]
    assert data.images[:, 0, 0, 0].tolist() == [10, 4, 6, 8, 11, 7, 9]
    assert data.notes == (
        "left out, images that cannot be read: 5 (a/0.png, a/2.png, b/1.png and 2 more)",
    )


def test_a_single_image_that_does_not_open_keeps_the_sentence_that_says_why(folder):
    (folder / "a" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"a/0.png is not a readable image; .*, or leave it out wi"):
        read(folder)


def test_class_folders_without_images_are_counted_with_everything_else(folder):
    (folder / "empty").mkdir()
    (folder / "words").mkdir()
    (folder / "words" / "1.txt").write_text("")
    (folder / "a" / "0.png").write_bytes(b"")
    with pytest.raises(DataError) as raised:
        read(folder)
    assert str(raised.value) == (
        "class folders without images: 2 (empty, words); images that cannot be read: 1 (a/0.png); "
        "correct them, or leave them out with --on-bad-data skip"
    )
    data = read(folder, skip=True)
    assert (data.classes, data.class_counts) == (("a", "b"), [5, 6])
    assert len(data.notes) == 2


def test_what_is_left_must_still_be_two_classes_of_two_images(folder):
    for path in (folder / "a").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"has only one class \(b\)"):
        read(folder, skip=True)
    for path in (folder / "b").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the images of .* can be used"):
        read(folder, skip=True)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_bad_rows_are_counted_and_left_out_if_asked(folder, kind):
    names = [f"{'ab'[number % 2]}/{number}.png" for number in range(12)]
    rows = [(name, name[0]) for name in names]
    rows[3:3] = [("", "a"), ("a/0.png", ""), ("gone.png", "a"), ("", "b"), ("", "b"), ("", "b")]
    if kind == "csv":
        path = folder / "labels.csv"
        lines = ["filename,label", *map(",".join, rows), "b,c.png,a"]
        says = [
            "rows of PATH without a filename: 4 (line 5, line 8, line 9 and 1 more)",
            "rows of PATH without a label: 1 (line 6)",
            "rows of PATH with more fields than its 2 columns: 1 (line 20)",
            "images of labels.csv that are not in FOLDER: 1 (gone.png)",
        ]
    else:
        path = folder / "metadata.jsonl"
        objects = [{"file_name": name or None, "label": label or [1]} for name, label in rows]
        lines = [*map(json.dumps, objects), "[1]", "{"]
        says = [
            "rows of PATH without a filename: 4 (line 4, line 7, line 8 and 1 more)",
            "rows of PATH without a label: 1 (line 5)",
            "lines of PATH that are no JSON object: 2 (line 19, line 20)",
            "images of metadata.jsonl that are not in FOLDER: 1 (gone.png)",
        ]
    path.write_text("\n".join(lines))
    says = [text.replace("PATH", str(path)).replace("FOLDER", str(folder)) for text in says]
    with pytest.raises(DataError) as raised:
        read(folder)
    assert str(raised.value) == (
        f"{'; '.join(says)}; correct them, or leave them out with --on-bad-data skip"
    )
    data = read(folder, skip=True)
    assert data.notes == tuple(f"left out, {text}" for text in says)
    assert data.class_counts == [6, 6]


def test_missing_images_are_the_reason_that_is_given_even_if_a_class_is_missing_too(folder):
    rows = ["filename,label", *(f"a/{number}.png,a" for number in (0, 2, 4)), "x.png,b", "y.png,b"]
    (folder / "labels.csv").write_text("\n".join(rows))
    with pytest.raises(DataError, match=r"that are not in .*: 2 \(x.png, y.png\)"):
        read(folder)
    with pytest.raises(DataError, match=r"has only one class \(a\)"):
        read(folder, skip=True)


def test_a_json_line_of_other_entries_names_them(folder):
    path = folder / "metadata.jsonl"
    path.write_text('{"file": "a/0.png", "label": "a"}\n')
    with pytest.raises(DataError, match=r"no column 'file_name', it has file, label; say which"):
        read(folder)
    path.write_text('{"file_name": "' + "a" * 2_000_000)
    with pytest.raises(DataError, match="line 1 has more than 1,048,576 bytes"):
        read(folder)


def test_very_many_bad_rows_are_counted_but_not_kept():
    notes = Notes(skip_bad=True)
    for number in range(100_000):
        notes.bad("rows", f"line {number}", "one")
    notes.settle()
    assert notes.said == ["left out, rows: 100,000 (line 0, line 1, line 2 and 99,997 more)"]
