"""Impossible recorded values give either a report or an error of one sentence.

Slow: each report takes about ten seconds. Run with `python -m pytest -m slow`.
"""

import json
import shutil
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gradflow.errors import GradflowError
from gradflow.report import write_reports
from gradflow.runs.writing.rebuilding import rebuild_manifest
from gradflow.train_and_trace import main
from reports.formats import parse_formats

pytestmark = pytest.mark.slow

MARKUP = "<script>alert(1)</script>"
FLOATS = [
    float("nan"),
    float("inf"),
    -float("inf"),
    0.0,
    1e308,
    -1e308,
    5e-324,
    -1.0,
    2.0**53,
    None,
]
INTEGERS = [0, -1, 1, 2, 7, 2**31 - 1, -(2**31)]
TEXTS = ["", MARKUP, "a" * 3000, "\x00\x1b[31m", "\u202ex", "../x", "=1+1", "\u732b", "`|`\n#"]
ENTRIES = [None, {}, [], "", MARKUP, 5, -1, 1e300, True, {"a": {"b": [1]}}]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "experiment"
    options = ["--models", "plain20", "resnet20", "--image-size", "8", "--epochs", "2"]
    assert main([*options, "--out", str(folder)]) == 0
    return folder


def forged_values(random, kind, values):
    """`values` of a column of type `kind`, with some replaced by extreme values of its type."""
    if pa.types.is_floating(kind):
        others = FLOATS
    elif pa.types.is_integer(kind):
        others = INTEGERS
    elif pa.types.is_boolean(kind):
        others = [True, False, None]
    elif pa.types.is_string(kind):
        others = TEXTS
    elif pa.types.is_binary(kind):
        others = [b"", bytes(50), None]
    else:
        others = [[], None, [0] * 5]
    share = random.choice([0.02, 0.2, 1.0])
    return [random.choice(others) if random.random() < share else value for value in values]


def forged(random, table):
    """`table` with a column changed or left out, or rows doubled, mixed, or left out."""
    rows = range(len(table))
    name = random.choice(table.column_names)
    place = table.column_names.index(name)
    kind = table.schema.field(name).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    change = random.choice(
        ["values", "values", "values", "column", "twice", "mixed", "half", "none"]
    )
    if change == "values":
        column = pa.array(forged_values(random, kind, table[name].to_pylist()), kind)
        return table.set_column(place, name, column)
    if change == "column":
        return table.drop_columns([name])
    if change == "twice":
        return pa.concat_tables([table, table])
    kept = {"mixed": len(rows), "half": len(rows) // 2}.get(change, 0)
    return table.take(pa.array(random.sample(rows, kept), pa.int64()))


def forge(random, run_folder):
    """Change some tables and entries of a run, and give it the checksums that go with them."""
    for part in random.sample(sorted(run_folder.rglob("*.parquet")), random.randint(0, 4)):
        table = pq.read_table(part, partitioning=None)
        if len(table):
            pq.write_table(forged(random, table), part)
    description = json.loads((run_folder / "run.json").read_text())
    for entries in (description, description["configuration"]):
        name = random.choice(sorted(entries.keys() - {"schema_version"}))
        if random.random() < 0.4:
            entries[name] = random.choice(ENTRIES)
    (run_folder / "run.json").write_text(json.dumps(description))
    rebuild_manifest(run_folder)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.filterwarnings("default::RuntimeWarning")  # of numbers as large as these
def test_forged_values_give_a_report_or_a_refusal(trained, tmp_path, page_of, seed):
    random = Random(seed)
    folder = shutil.copytree(trained, tmp_path / "experiment")
    for run in sorted(path for path in folder.iterdir() if path.is_dir()):
        forge(random, run)
    try:
        write_reports(folder, parse_formats("html,pdf,md,json"))
    except GradflowError as error:
        assert str(error).isprintable()  # noqa: PT017 - either end is right
    else:
        page = (folder / "report.html").read_bytes()
        assert page_of(page).open == []
        assert MARKUP.encode() not in page
        assert (folder / "report.pdf").read_bytes().startswith(b"%PDF-")
