"""CSV files as written by spreadsheets, people and attackers."""

import csv
import io
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradflow.data.label_csv import read_labels
from gradflow.errors import DataError


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return tmp_path_factory.mktemp("tables") / "train.csv"


def labels(table, content):
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    return {name: row.label for name, row in read_labels(table).items()}


TWO = {"a.png": "x", "b.png": "y"}


@pytest.mark.parametrize(
    "content",
    [
        "filename,label\na.png,x\nb.png,y\n",
        "\ufefffilename;label\r\na.png;x\r\nb.png;y\r\n",
        "filename\tlabel\na.png\tx\nb.png\ty",
        "filename,label\ra.png,x\rb.png,y\r",
        'label,note,filename\nx,,a.png\n\ny,"1,2",b.png\n',
        '"filename","label"\n"a.png","x"\n"b.png","y"\n',
        "filename,label,a;b;c\na.png,x,\nb.png,y\n",
    ],
    ids=["comma", "bom-semicolon", "tab", "return", "others", "quoted", "both"],
)
def test_every_usual_kind_of_csv_is_read_alike(table, content):
    assert labels(table, content) == TWO


def test_a_field_is_text_whatever_it_looks_like(table):
    content = (
        "filename,label\n=1+1.png,=cmd|' /C calc'!A0\n-rf.png,@SUM(A1)\n"
        '"it\'s ""1""\n.png",<b>&\n\u6f22.png,NaN\n1e5.png,007\n'
    )
    assert labels(table, content) == {
        "=1+1.png": "=cmd|' /C calc'!A0",
        "-rf.png": "@SUM(A1)",
        'it\'s "1"\n.png': "<b>&",
        "\u6f22.png": "NaN",
        "1e5.png": "007",
    }


def test_repeated_rows_count_once_and_are_counted(table):
    table.write_text("filename,label\na.png,x\n./a.png,x\nb.png,y\na.png,x\n")
    assert {name: row.rows for name, row in read_labels(table).items()} == {"a.png": 3, "b.png": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("filename,label\na.png,x\nb,c.png,y\n", "3 fields in line 3, but 2 columns; put names"),
        ("filename,label\n\n\na.png\n", "no filename or no label in line 4"),
        ('filename,label\n"a\nb.png",x\n,\n', "no filename or no label in line 4"),
        ("filename,label,label\n", "several columns 'label'"),
        ("filename,filename ,label\n", "several columns 'filename'"),
        ("filename|label\na|x\n", "no column 'filename', it has filename|label"),
        ("filename,label\na,x\n".encode("utf-16"), "not valid UTF-8; save it as CSV UTF-8"),
        ("filename,label\nb\u00e4r,x\n".encode("latin-1"), "not valid UTF-8"),
        (b"\0" * 1000, "cannot be read as a CSV|no column"),
        ("filename,label\n" + "a" * 2_000_000, "more than 1,048,576 characters"),
        ('filename,label\n"' + "a\n" * 200_000, "field larger than field limit"),
        ("filename,label\na/\u2028/../../b,x\n", r"u2028.*leads out of its folder"),
        ("filename,label\n//host/share/b,x\n", "leads out of its folder"),
        ("filename,label\n..,x\n", "leads out of its folder"),
    ],
)
def test_an_invalid_csv_is_refused_in_one_line_that_names_it(table, content, message):
    with pytest.raises(DataError, match=message) as raised:
        labels(table, content)
    assert str(table) in str(raised.value)
    assert str(raised.value).isprintable()


def test_a_million_rows_of_few_files_take_seconds_and_no_memory_to_speak_of(table):
    rows = "".join(f"{index % 100}.png,class{index % 10}\n" for index in range(1000))
    with table.open("w") as file:
        file.write("filename,label\n")
        for _ in range(1000):
            file.write(rows)
    started = time.perf_counter()
    read = read_labels(table)
    seconds = time.perf_counter() - started
    assert (len(read), sum(row.rows for row in read.values())) == (100, 1_000_000)
    assert seconds < 10  # 1.3 on an idle core

    with table.open("w") as file:
        file.write("filename,label\n" + rows * 20)
    tracemalloc.start()
    read_labels(table)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20  # of a file of 0.3 MB; 32 MB if its rows were kept


FIELD = (
    st.text(
        st.characters(exclude_characters="\\/:\0", exclude_categories=("Cs",)),
        min_size=1,
        max_size=8,
    )
    .map(str.strip)
    .filter(lambda name: name and name != "..")
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(FIELD, FIELD, min_size=1, max_size=5), st.sampled_from(",;\t"))
def test_what_the_csv_module_writes_is_read_back(table, expected, delimiter):
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([("filename", "label"), *expected.items()])
    assert labels(table, text.getvalue()) == expected


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_labels_or_refused(table, content):
    message = "."
    try:
        assert labels(table, b"filename,label\n" + content)
    except DataError as error:
        message = str(error)
    assert message.isprintable()


def test_a_label_longer_than_a_report_can_repeat_is_refused(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text(f"filename,label\na.png,{'x' * 1025}\n")
    with pytest.raises(
        DataError, match=r"a label of 1,025 characters in line 2, more than the 1,024"
    ):
        read_labels(table)
