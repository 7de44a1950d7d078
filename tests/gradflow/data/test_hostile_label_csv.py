"""Any CSV text and any file name gives images or one sentence, and reads nothing outside."""

import csv
import io
import os
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gradflow.data import load
from gradflow.data.folders import find_files
from gradflow.data.label_csv import read_labels
from gradflow.errors import DataError

# Python decodes a byte that is not text as one of the surrogates from U+DC80 on.
NAMES = st.one_of(
    st.sampled_from(["..", "../secret.png", "/etc/passwd", "C:x", "-rf", "~", "a\nb", "x" * 300]),
    st.text(
        st.characters(exclude_categories=("Cs",)) | st.sampled_from("/\\:.~\udcff\0\n"), max_size=12
    ),
)
PICTURE = io.BytesIO()
Image.new("RGB", (4, 4)).save(PICTURE, "png")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder beside a file that must not be read."""
    folder = tmp_path_factory.mktemp("base") / "home"
    folder.mkdir()
    (folder.parent / "secret.png").write_bytes(PICTURE.getvalue())
    return folder


def read_or_refused(read):
    """The result of `read`; None if it refuses with a printable sentence."""
    message = "."
    try:
        return read()
    except DataError as error:
        message = str(error)
    assert message
    assert message.isprintable()
    return None


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(NAMES, max_size=3), max_size=4),
    st.sampled_from([("filename", "label"), ("label", "filename", "x"), ("filename",), ()]),
    st.sampled_from([",", ";", "\t", "|"]),
    st.booleans(),
)
def test_any_text_of_a_csv_is_labels_or_a_sentence(home, rows, header, delimiter, quoted):
    text = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    csv.writer(text, delimiter=delimiter, quoting=quoting).writerows([header, *rows])
    table = home.parent / "labels.csv"
    table.write_bytes(text.getvalue().encode(errors="replace"))
    labels = read_or_refused(lambda: read_labels(table))
    assert labels != {}
    for name, row in (labels or {}).items():
        assert name
        assert row.label == row.label.strip() != ""
        assert ".." not in name.split("/")
        assert not os.path.isabs(name)  # noqa: PTH117 - a name may be no path


@settings(max_examples=200, deadline=None)
@given(st.lists(NAMES, max_size=3), st.booleans())
def test_whatever_a_csv_names_lies_in_its_folder(home, names, there):
    shutil.rmtree(home)
    home.mkdir()
    for name in [*names, "a.png", "b.png"] if there else ():
        place_inside(home, name)
    text = io.StringIO(newline="")
    rows = [(name, index % 2) for index, name in enumerate(["a.png", "b.png", *names])]
    csv.writer(text).writerows([("filename", "label"), *rows])
    (home / "labels.csv").write_bytes(text.getvalue().encode(errors="replace"))
    files = read_or_refused(lambda: find_files(home))
    assert all(file.path.resolve().is_relative_to(home.resolve()) for file in files or ())


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(NAMES, NAMES), max_size=4))
def test_images_of_any_names_in_folders_of_any_names_are_read_or_refused(home, names):
    shutil.rmtree(home)
    home.mkdir()
    for folder, name in [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2"), *names]:
        place_inside(home, f"{folder}/{name}.png")
    data = read_or_refused(lambda: load(str(home), image_size=4))
    if data is not None:
        assert {"a", "b"} <= set(data.classes)
        for text in (*data.classes, *data.names):
            text.encode()  # what no file could hold is written out


@settings(max_examples=200, deadline=None)
@given(NAMES.filter(lambda name: name not in ("digits", "cifar10")))
def test_any_text_as_the_name_of_a_data_set_is_read_or_refused(home, source):
    for name in (source, f"{home}/none/{source}"):
        read_or_refused(lambda name=name: load(name))


def place_inside(home, name):
    """Write a picture to `name`, if that is inside `home` and a valid file name."""
    path = os.path.normpath(f"{home}/{name}")
    if not path.startswith(f"{home}/"):
        return
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(PICTURE.getvalue())
    except (OSError, ValueError):
        return
