"""Reading a part returns what was written, or names the damaged part."""

import shutil

import pyarrow.parquet as pq
import pytest

import gradflow
from gradflow.errors import RunError
from gradflow.runs.format.manifest import read_manifest
from gradflow.runs.format.parts import parts_of
from gradflow.runs.format.schema import TABLES
from gradflow.runs.reading.part import MissingPartError, read_layer, read_part


@pytest.fixture(params=["appended", "merged"])
def part(request, tmp_path, small_run, merging, unflushed):
    merging(2 if request.param == "merged" else 1000)
    last = 2 if request.param == "merged" else 1
    folder = small_run.record(tmp_path / "run", last, tables=("gradients",))
    (only,) = parts_of(read_manifest(folder), "gradients")
    assert only.is_merged == (request.param == "merged")
    return only


def manifest_of(part):
    return read_manifest(part.path.parent.parent)


def test_names_come_back_as_plain_strings_in_the_order_written(part, small_run):
    table = read_part(manifest_of(part), part)
    steps = len(table) // len(small_run.layers)
    assert table["layer"].to_pylist() == small_run.layers * steps
    assert table.column_names[:3] == ["epoch", "step", "layer"]
    assert "row" not in table.column_names


def test_layer_is_read_with_the_columns_that_there_are(part):
    table = read_layer(manifest_of(part), part, ["step", "absent", "norm"], "head")
    whole = read_part(manifest_of(part), part).to_pandas()
    assert table.column_names == ["step", "norm"]
    assert table["norm"].to_pylist() == whole[whole["layer"] == "head"]["norm"].tolist()


def test_every_flipped_byte_is_noticed(part):
    content = part.path.read_bytes()
    for place in range(0, len(content), 97):
        flipped = bytearray(content)
        flipped[place] ^= 0x10
        part.path.write_bytes(flipped)
        with pytest.raises(RunError, match=f"{part.path.name} is damaged"):
            read_part(manifest_of(part), part)


def test_flipped_byte_among_the_values_is_noticed_by_the_checksums_of_pages(part, small_run):
    content = bytearray(part.path.read_bytes())
    place = next(i for i, q in enumerate(TABLES["gradients"].columns) if q.name == "norm")
    chunk = pq.read_metadata(part.path).row_group(0).column(place)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content[start + chunk.total_compressed_size - 2] ^= 0x10  # its last page ends with its values
    part.path.write_bytes(content)

    def read_all():
        return [read_layer(manifest_of(part), part, ["norm"], layer) for layer in small_run.layers]

    with pytest.raises(RunError, match="is damaged"):
        read_all()


def test_missing_part_is_called_missing(part):
    part.path.unlink()
    for read in (
        lambda: read_part(manifest_of(part), part),
        lambda: read_layer(manifest_of(part), part, ["norm"], "head"),
    ):
        with pytest.raises(MissingPartError, match=r"missing: .*--repair"):
            read()


def test_table_without_layers_has_no_layer_history(tmp_path, small_run):
    run = gradflow.open_run(small_run.record(tmp_path / "run", 1))
    with pytest.raises(RunError, match="the table epochs has no rows for single layers"):
        run.layer_history("epochs", "head", ["train_loss"])


def test_part_copied_over_another_is_noticed(tmp_path, small_run):
    folder = small_run.record(tmp_path / "run", 2)
    first, second = sorted(folder.glob("gradients/*"))
    shutil.copy(first, second)
    with pytest.raises(RunError, match=second.name):
        _ = gradflow.open_run(folder).gradients
