"""Parts with unusual columns, types and sizes are refused, or converted to the schema."""

import re
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gradflow
from gradflow.errors import RunError
from gradflow.runs.format.limits import LIMIT_VARIABLE
from gradflow.runs.format.manifest import MANIFEST_FILE
from gradflow.runs.format.schema import TABLES
from gradflow.runs.reading import part, part_contents
from gradflow.runs.writing.run import RunWriter

PART = "part-0000000000-0000000002.parquet"
KEYS = {"epoch": pa.array([1], pa.int32()), "step": pa.array([2], pa.int64())}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "run"
    RunWriter(folder, {"network": "net"}).release()
    (folder / MANIFEST_FILE).unlink(missing_ok=True)  # an attacker's would have the right sums
    for table in ("epochs", "gradients", "shattering", "attribution_pictures"):
        (folder / table).mkdir()
    return folder


def put(folder, columns, table="epochs", **options):
    content = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pq.write_table(content, folder / table / PART, **options)
    return gradflow.open_run(folder)


def refused(run, message, table="epochs"):
    with pytest.raises(RunError, match=message) as raised:
        run.table(table)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"epoch": pa.array(["1"])}, "column 'epoch' holds string"),
        ({"epoch": pa.array([1.0])}, "column 'epoch' holds double"),
        ({"epoch": pa.array([2**40])}, "is damaged"),
        ({"step": pa.array([2**64 - 1], pa.uint64())}, "is damaged"),
        ({"epoch": pa.array([None], pa.int32())}, "rows without epoch"),
        ({"step": pa.array([True])}, "column 'step' holds bool"),
        ({"row": pa.array(["a"])}, "column 'row' holds string"),
        ({"row": pa.array([None], pa.int64())}, "rows without row"),
        ({"x": pa.array([[[1]]])}, "column 'x' holds list"),
        ({"x": pa.array([{"a": 1}])}, "column 'x' holds struct"),
        ({"x": pa.array([b"a"])}, "column 'x' holds binary"),
        ({"x": pa.array([0], pa.timestamp("ns"))}, "column 'x' holds timestamp"),
        ({"x": pa.array([1], pa.decimal128(38))}, "column 'x' holds decimal"),
    ],
)
def test_a_column_of_another_type_is_refused(folder, column, message):
    refused(put(folder, KEYS | column), message)


def test_a_layer_that_is_no_text_is_refused(folder):
    refused(
        put(folder, KEYS | {"layer": pa.array([1])}, "gradients"),
        "'layer' holds int64",
        "gradients",
    )
    text = pa.StringArray.from_buffers(1, pa.py_buffer(np.int32([0, 2])), pa.py_buffer(b"\xff\xfe"))
    refused(put(folder, KEYS | {"layer": text}, "gradients"), "damaged .*UTF-?8", "gradients")


def test_a_row_without_its_time_is_refused(folder):
    refused(put(folder, {"step": KEYS["step"]}), "it has no column 'epoch'")
    refused(put(folder, {"epoch": KEYS["epoch"]}), "it has no column 'step'")


@pytest.mark.parametrize("layer", [{}, {"layer": pa.array([None], pa.string())}])
def test_a_row_that_does_not_name_its_layer_is_refused(folder, layer):
    message = "rows without layer" if layer else "it has no column 'layer'"
    refused(put(folder, KEYS | layer, "gradients"), message, "gradients")


def test_a_folder_called_like_a_table_holds_its_layers(tmp_path):
    with RunWriter(tmp_path / "epochs", {}) as writer:
        columns = {quantity.name: [None] for quantity in TABLES["layers"].columns}
        writer.write_layers(columns | {"layer": ["stem"]})
    assert gradflow.open_run(tmp_path / "epochs").layers["layer"].tolist() == ["stem"]


def test_a_column_that_is_there_twice_is_refused(folder):
    table = pa.Table.from_arrays([*KEYS.values(), *KEYS.values()], names=[*KEYS, *KEYS])
    refused(put(folder, table), "it has the column 'epoch' twice")


def test_other_integers_floats_and_texts_become_those_of_the_schema(folder):
    columns = {
        "epoch": pa.array([1], pa.uint8()),
        "step": pa.array([2], pa.int16()),
        "layer": pa.array(["<script>alert(1)</script>\x1b"], pa.large_string()),
        "batch_size": pa.array([None]),
        "mean": pa.array([1.5], pa.float32()),
        "nonfinite": pa.array([3], pa.uint64()),
    }
    frame = put(folder, columns, "gradients").table("gradients")
    assert frame["epoch"].dtype == np.int32
    assert frame["step"].dtype == np.int64
    assert frame["mean"].dtype == np.float64
    assert frame["layer"].tolist() == ["<script>alert(1)</script>\x1b"]
    assert frame["batch_size"].isna().all()


@pytest.mark.parametrize(
    "metadata",
    [
        {b"pandas": b"{"},
        {b"pandas": b'{"index_columns": ["epoch"], "columns": [{"name": "epoch"}]}'},
        {b"pandas": b'{"index_columns": [{"kind": "range", "stop": 1e999}], "columns": []}'},
        {b"pandas": b"[" * 100_000, b"\xff": b"\0"},
    ],
)
def test_metadata_for_pandas_is_not_believed(folder, metadata):
    table = pa.table(KEYS).replace_schema_metadata(metadata)
    frame = put(folder, table).epochs
    pd.testing.assert_frame_equal(
        frame, pd.DataFrame({"epoch": [1], "step": [2]}).astype({"epoch": np.int32})
    )


def test_an_extension_type_is_refused_and_its_pickle_not_run(folder, tmp_path):
    witness = tmp_path / "ran"
    pickled = b"cos\nsystem\n(S'touch " + str(witness).encode() + b"'\ntR."
    hidden = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickled,
    }
    field = pa.field("x", pa.int64(), metadata=hidden)
    fields = [pa.field("epoch", pa.int32()), pa.field("step", pa.int64()), field]
    run = put(folder, pa.table([*KEYS.values(), pa.array([1])], schema=pa.schema(fields)))
    try:
        assert run.epochs["x"].tolist() == [1]  # read as what it is stored as
    except RunError as error:
        # The message depends on the version of Arrow.
        assert re.search("holds extension|pickle-based .* disabled", str(error))  # noqa: PT017
    assert not witness.exists()


def test_gigabytes_of_zeros_in_a_small_file_are_refused_by_its_metadata(folder, monkeypatch):
    monkeypatch.setenv(LIMIT_VARIABLE, "0.25")
    schema = pa.schema([("epoch", pa.int32()), ("step", pa.int64()), ("x", pa.float64())])
    zeros = [np.zeros(1 << 22, kind) for kind in (np.int32, np.int64, np.float64)]
    path = folder / "epochs" / PART
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for _ in range(4):
            writer.write_table(pa.table(zeros, schema=schema), row_group_size=1 << 22)
    assert path.stat().st_size < 1 << 19
    before = pa.total_allocated_bytes()
    refused(
        gradflow.open_run(folder), r"take 0\.31 GiB of memory, more than the limit of 0\.25 GiB"
    )
    assert pa.total_allocated_bytes() - before < 1 << 20


def test_a_file_whose_metadata_is_too_small_is_refused_during_reading(folder, monkeypatch):
    rows = 1 << 23
    columns = {"epoch": np.ones(rows, np.int32), "step": np.zeros(rows, np.int64)}
    run = put(folder, columns | {"x": np.zeros(rows)}, compression="zstd", data_page_size=1 << 16)
    monkeypatch.setenv(LIMIT_VARIABLE, "0.02")
    monkeypatch.setattr(part, "require_fits_memory", lambda *_: None)  # believes it has room
    columns.clear()
    before = pa.total_allocated_bytes()
    highest = watch_memory(monkeypatch)
    refused(run, r"would take 0\.02 GiB of memory, more than the limit of 0\.02 GiB")
    assert max(highest) - before < 40 << 20  # of the 168 MB that it holds


def watch_memory(monkeypatch):
    """The memory that Arrow holds at each batch that is read."""
    seen = []
    require = part_contents.require_memory

    def look(what, needed):
        seen.append(pa.total_allocated_bytes())
        require(what, needed)

    monkeypatch.setattr(part_contents, "require_memory", look)
    return seen


def test_a_long_text_that_each_row_repeats_is_refused_before_it_is_repeated(folder, monkeypatch):
    monkeypatch.setenv(LIMIT_VARIABLE, "0.05")
    rows = 1_000
    text = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), pa.array(["a" * 100_000]))
    for column in (text, text.cast(pa.string())):
        columns = {"epoch": np.ones(rows, np.int32), "step": np.arange(rows), "x": column}
        run = put(folder, columns)
        before = pa.default_memory_pool().max_memory()
        refused(run, f"take 0.09 GiB of memory.*environment variable {LIMIT_VARIABLE}, in GiB")
        assert pa.default_memory_pool().max_memory() <= max(before, 50 << 20)


def test_a_long_list_in_few_bytes_is_refused(folder, monkeypatch):
    monkeypatch.setenv(LIMIT_VARIABLE, "0.01")
    values = pa.ListArray.from_arrays([0, 4_000_000], pa.array(np.zeros(4_000_000, np.float32)))
    image = {**KEYS, "image": KEYS["epoch"], "method": pa.array(["a"]), "values": values}
    refused(put(folder, image, "attribution_pictures"), "GiB of memory", "attribution_pictures")


def test_parts_that_are_small_each_and_large_together_are_refused(folder, monkeypatch):
    rows = 20_000
    columns = {"epoch": np.ones(rows, np.int32), "step": np.arange(rows), "x": np.random.rand(rows)}
    run = put(folder, columns)
    others = [
        folder / "epochs" / PART.replace("-00000000", f"-000000{n}", 1) for n in range(10, 14)
    ]
    for other in others:
        other.write_bytes((folder / "epochs" / PART).read_bytes())
    monkeypatch.setenv(LIMIT_VARIABLE, "0.001")
    refused(run, "a table of the run would take")
    monkeypatch.setenv(LIMIT_VARIABLE, "0.1")
    assert len(run.epochs) == 5 * rows
    for other in others:
        other.unlink()


def test_parts_whose_scalars_do_not_fit_together_are_refused(folder):
    put(folder, KEYS | {"x": pa.array(["a"])})
    other = folder / "epochs" / PART.replace("0-", "3-").replace("2.", "5.")
    pq.write_table(pa.table(KEYS | {"x": pa.array([1.5])}), other)
    refused(gradflow.open_run(folder), "the parts of the table epochs do not fit together")
    pq.write_table(pa.table(KEYS | {"x": pa.array(["b"])}), other)
    assert gradflow.open_run(folder).epochs["x"].tolist() == ["a", "b"]
    put(folder, KEYS | {"x": pa.array([1])})
    pq.write_table(pa.table(KEYS | {"x": pa.array([1.5])}), other)
    assert gradflow.open_run(folder).epochs["x"].tolist() == [1.0, 1.5]
    other.unlink()


def test_reading_one_layer_has_the_same_limits(folder, monkeypatch):
    rows = 1000
    columns = {
        "epoch": np.ones(rows, np.int32),
        "step": np.arange(rows),
        "layer": pa.array(["a"] * rows),
        "mean": np.arange(rows) / 2,
    }
    run = put(folder, columns, "gradients")
    history = run.layer_history("gradients", "a", ["mean"])
    assert history["mean"].tolist() == (np.arange(rows) / 2).tolist()
    monkeypatch.setenv(LIMIT_VARIABLE, "0.00001")
    with pytest.raises(RunError, match="GiB of memory"):
        run.layer_history("gradients", "a", ["mean"])
    monkeypatch.delenv(LIMIT_VARIABLE)
    run = put(folder, columns | {"layer": np.arange(rows)}, "gradients")
    with pytest.raises(RunError, match="'layer' holds int64"):
        run.layer_history("gradients", "a", ["mean"])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=5))
def test_any_damage_gives_a_frame_or_an_error(folder, changes):
    columns = KEYS | {"x": pa.array([0.5]), "name": pa.array(["a"])}
    put(folder, columns, store_schema=True)
    path = folder / "epochs" / PART
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[int(place * len(content))] = value
    path.write_bytes(content)
    message = "."
    try:
        assert isinstance(gradflow.open_run(folder).epochs, pd.DataFrame)
    except RunError as error:
        message = str(error)
    assert message.isprintable()


@pytest.mark.parametrize(
    ("table", "columns", "message"),
    [
        ("epochs", {"note": ["a" * 16_385]}, "column 'note' holds a text of too many characters"),
        ("path_lengths", {"length": [2**31 - 1]}, "its column 'length' holds 2147483647"),
        ("path_lengths", {"length": [-1]}, "its column 'length' holds -1"),
        (
            "gradient_histograms",
            {"layer": ["a"], "lowest_exponent": [-(2**31)]},
            "its column 'lowest_exponent' holds -2147483648",
        ),
    ],
)
def test_values_that_would_fill_the_memory_are_refused(folder, table, columns, message):
    (folder / table).mkdir(exist_ok=True)
    refused(put(folder, {**KEYS, **columns}, table), message, table)


def test_time_to_read_very_many_columns_grows_with_their_number(folder):
    def seconds(count):
        run = put(folder, {**KEYS, **{f"x{number}": [0.5] for number in range(count)}})
        begin = time.process_time()
        assert len(run.epochs.columns) == count + 2
        return time.process_time() - begin

    seconds(10)
    # Searching all columns for each column would take a hundred times longer.
    assert seconds(3000) < 30 * max(seconds(300), 0.005)
