"""Any lines of JSON, and any damaged Parquet file, give images or one sentence."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gradflow.data import Reading, load
from gradflow.data.folders import find_files
from gradflow.data.label_csv import read_labels
from gradflow.errors import DataError, GradflowError

PICTURE = io.BytesIO()
Image.new("RGB", (4, 4)).save(PICTURE, "png")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


def read_or_refused(read):
    """The result of `read`; None if it refuses with a printable sentence."""
    message = "."
    try:
        return read()
    except GradflowError as error:
        message = str(error)
    assert message
    assert message.isprintable()
    return None


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(JSON | st.just("a.png"), JSON | st.just("x")), max_size=4), st.booleans())
def test_any_json_is_labels_or_a_sentence(folder, rows, skip):
    path = folder / "metadata.jsonl"
    path.write_text("".join(json.dumps({"file_name": a, "label": b}) + "\n" for a, b in rows))
    for name, row in (read_or_refused(lambda: read_labels(path)) or {}).items():
        assert name
        assert row.label == row.label.strip() != ""
        assert ".." not in name.split("/")
    read_or_refused(lambda: find_files(path, Reading(skip_bad=skip)))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_lines_of_json_or_a_sentence(folder, content):
    path = folder / "other.jsonl"
    path.write_bytes(b'{"file_name": "a.png", "label": "x"}\n' + content)
    read_or_refused(lambda: read_labels(path))


@pytest.mark.parametrize(
    "line", ["[" * 100_000, '{"label": ' + "9" * 5000 + "}", '{"a": "\\ud800"}']
)
def test_a_line_of_json_that_python_cannot_hold_is_a_bad_row(folder, line):
    path = folder / "deep.jsonl"
    path.write_text('{"file_name": "a.png", "label": "x"}\n' + line)
    with pytest.raises(DataError, match="in line 2; co"):
        read_labels(path)


def test_a_path_in_a_table_or_in_parquet_leads_nowhere(tmp_path):
    (tmp_path / "secret.png").write_bytes(PICTURE.getvalue())
    (tmp_path / "home").mkdir()
    path = tmp_path / "home" / "metadata.jsonl"
    path.write_text('{"file_name": "../secret.png", "label": "x"}\n')
    with pytest.raises(DataError, match=r"names '\.\./secret.png', which leads out of its folder"):
        find_files(path)
    images = [{"bytes": None, "path": str(tmp_path / "secret.png")}] * 4
    path = tmp_path / "home" / "train.parquet"
    typed = pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"image": typed, "label": ["x", "y"] * 2}), path)
    with pytest.raises(DataError, match=r"rows of .*train.parquet without an image: 4"):
        find_files(path)


def write_parquet(path, labels=("x", "y")):
    contents = [PICTURE.getvalue() + bytes([number]) for number in range(4)]
    pq.write_table(pa.table({"image": contents, "label": list(labels) * 2}), path)
    return path.read_bytes()


def test_a_label_in_parquet_longer_than_a_report_can_repeat_is_refused(tmp_path):
    write_parquet(tmp_path / "a.parquet", ["x" * 1025, "y"])
    with pytest.raises(
        DataError, match="a label of 1,025 characters in row 0, more than the 1,024"
    ):
        find_files(tmp_path / "a.parquet")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_parquet_file_gives_images_or_a_sentence(folder, data):
    path = folder / "damaged.parquet"
    content = bytearray(write_parquet(path))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(len(content) - 50, len(content)))])
    read_or_refused(lambda: load(str(path), image_size=8))
