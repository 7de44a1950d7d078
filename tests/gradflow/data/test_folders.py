"""Finding labelled files: both layouts, and every kind of unusable folder."""

from pathlib import Path

import pytest
from PIL import Image

from gradflow.data.folders import find_files
from gradflow.errors import DataError


def picture(path: Path, color: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (color, 10, 20)).save(path)
    return path


def described(folder: Path, text: str, *images: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for color, name in enumerate(images):
        picture(folder / name, color)
    table = folder / "train.csv"
    table.write_text(text, encoding="utf-8")
    return table


FOUR = "filename,label\nd.png,soto\na.png,bakso\nb.png,bakso\nc.png,soto\n"


def test_a_folder_a_class_is_read_in_order_of_names_without_hidden_or_other_files(tmp_path):
    for name in ("b/2.PNG", "b/deeper/1.jpg", "a/x.webp", "a/y.gif", ".hidden/z.png", "a/.z.png"):
        picture(tmp_path / name)
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / "readme.md").write_text("not a class")

    files = find_files(tmp_path)

    assert [(file.name, file.label) for file in files] == [
        ("a/x.webp", "a"),
        ("a/y.gif", "a"),
        ("b/2.PNG", "b"),
        ("b/deeper/1.jpg", "b"),
    ]
    assert all(file.path == tmp_path / file.name for file in files)


@pytest.mark.parametrize("place", ["", "train/", "pictures/"])
@pytest.mark.parametrize("by_table", [True, False])
def test_images_of_a_csv_are_found_beside_it_or_in_a_folder_beside_it(tmp_path, place, by_table):
    table = described(tmp_path, FOUR, *(f"{place}{name}.png" for name in "abcd"))
    files = find_files(table if by_table else tmp_path)
    assert [(file.name, file.label) for file in files] == [
        (f"{place}a.png", "bakso"),
        (f"{place}b.png", "bakso"),
        (f"{place}c.png", "soto"),
        (f"{place}d.png", "soto"),
    ]


def test_a_folder_named_as_the_csv_comes_before_others_with_the_same_names(tmp_path):
    names = [f"{folder}/{name}.png" for folder in ("a_test", "train") for name in "abcd"]
    described(tmp_path, FOUR, *names)
    assert {file.path.parent.name for file in find_files(tmp_path)} == {"train"}


def test_files_in_two_other_folders_alike_are_refused_rather_than_guessed(tmp_path):
    names = [f"{folder}/{name}.png" for folder in ("one", "two") for name in "abcd"]
    described(tmp_path, FOUR, *names)
    with pytest.raises(DataError, match="are in one and two; write the folder"):
        find_files(tmp_path)


def test_a_csv_may_have_a_byte_order_mark_spaces_backslashes_and_an_image_twice(tmp_path):
    text = (
        "\ufefffilename , label\ntrain\\a.png, NA\n./train/b.png,NA\n"
        "train/c.png,x\ntrain/d.png,x\ntrain/d.png,x\n"
    )
    described(tmp_path, text, *(f"train/{name}.png" for name in "abcd"))
    assert [(file.name, file.label) for file in find_files(tmp_path)] == [
        ("train/a.png", "NA"),
        ("train/b.png", "NA"),
        ("train/c.png", "x"),
        ("train/d.png", "x"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as a CSV"),
        ("filename,label\n", "lists no images"),
        ('filename,label\n"a.png,x', "cannot be read as a CSV"),
        ("file,label\na.png,x\n", "no column 'filename', it has file, label; say which"),
        ("filename,class\na.png,x\n", "no column 'label', it has filename, class; say which"),
        ("filename,label\na.png,x\n,y\n", "no filename or no label in line 3"),
        ("filename,label\na.png,x\nb.png,\n", "no filename or no label in line 3"),
        ("filename,label\na.png,x\n./a.png,y\n", "gives a.png two labels, x and y"),
        ("filename,label\na.png,x\n../b.png,y\n", r"names '\.\./b\.png', which leads out"),
        ("filename,label\na.png,x\nin/../../b.png,y\n", "which leads out of its folder"),
        ("filename,label\na.png,x\n..\\b.png,y\n", "which leads out of its folder"),
        ("filename,label\na.png,x\n/etc/b.png,y\n", "names '/etc/b.png', which leads out"),
        ("filename,label\na.png,x\nC:\\b.png,y\n", "which leads out of its folder"),
        (
            FOUR,
            r"images of train.csv that are not in .*: 2 \(c.png, d.png\); correct them, or leave",
        ),
        ("filename,label\na.png,x\nb.png,x\n", r"has only one class \(x\)"),
        ("filename,label\na.png,x\nb.png,y\n", "the class x of .* has a single image"),
    ],
)
def test_an_unfit_csv_is_refused_in_one_sentence_that_names_it(tmp_path, text, message):
    table = described(tmp_path, text, "a.png", "b.png")
    with pytest.raises(DataError, match=message) as raised:
        find_files(tmp_path)
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(DataError, match=message):
        find_files(table)


def test_a_csv_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "train.csv").write_bytes(b"filename,label\n\xff\xfe\x00.png,x\n")
    with pytest.raises(DataError, match="cannot be read as a CSV"):
        find_files(tmp_path)


def test_several_csv_files_are_refused_unless_one_is_named(tmp_path):
    table = described(tmp_path, FOUR, "a.png", "b.png", "c.png", "d.png")
    (tmp_path / "more.csv").write_text(FOUR)
    with pytest.raises(DataError, match=r"several CSV files \(more.csv, train.csv\)"):
        find_files(tmp_path)
    assert len(find_files(table)) == 4


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"the folder .*nowhere does not exist"):
        find_files(tmp_path / "nowhere")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(
        DataError, match="holds neither a folder of images for each class nor a CSV"
    ):
        find_files(tmp_path)


def test_a_file_that_is_no_csv_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"a.png is a file; give a folder"):
        find_files(picture(tmp_path / "a.png"))


def test_a_class_folder_without_images_is_refused(tmp_path):
    picture(tmp_path / "a" / "1.png")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.txt").write_text("")
    with pytest.raises(DataError, match=r"class folder .*b holds no images"):
        find_files(tmp_path)


def test_one_class_or_a_class_with_one_image_is_refused(tmp_path):
    picture(tmp_path / "a" / "1.png")
    picture(tmp_path / "a" / "2.png")
    with pytest.raises(DataError, match=r"has only one class \(a\)"):
        find_files(tmp_path)
    picture(tmp_path / "b" / "1.png")
    with pytest.raises(DataError, match=r"the class b of .* has a single image"):
        find_files(tmp_path)
