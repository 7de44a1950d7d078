"""Merged parts hold the same rows as unmerged ones, in the same order, in few files."""

import math

import pandas as pd
import pyarrow.parquet as pq
import pytest

import gradflow
from gradflow.runs.format.schema import TABLES
from gradflow.runs.writing import merging as merging_module
from gradflow.runs.writing.run import RunWriter

EPOCHS = 11


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, frame in first.items():
        pd.testing.assert_frame_equal(frame, second[name], check_exact=True)


@pytest.fixture
def unmerged(tmp_path, small_run, merging, unflushed):
    merging(1000)
    return small_run.record(tmp_path / "unmerged", EPOCHS)


@pytest.mark.parametrize("at_once", [2, 3, 4])
@pytest.mark.parametrize("rows_in_a_batch", [5, 1 << 19])
def test_merged_run_equals_the_unmerged_one(
    at_once, rows_in_a_batch, unmerged, tmp_path, small_run, merging, monkeypatch
):
    merging(at_once)
    monkeypatch.setattr(merging_module, "_ROWS_PER_BATCH", rows_in_a_batch)
    monkeypatch.setattr(merging_module, "_ROWS_PER_GROUP", 4)
    merged = small_run.record(tmp_path / "merged", EPOCHS)
    assert_same(small_run.tables(unmerged), small_run.tables(merged))
    for table in small_run.tables(merged):
        files = len(list(merged.glob(f"{table}/*")))
        assert files <= (at_once - 1) * (1 + math.log(EPOCHS, at_once)) < EPOCHS
        assert files == sum(digits(EPOCHS, at_once))


def digits(number, base):
    """The digits of `number` in `base`: how many parts are left of each merge generation."""
    while number:
        number, digit = divmod(number, base)
        yield digit


@pytest.mark.parametrize("at_once", [2, 3, 1000])
def test_layer_history_is_the_whole_table_filtered(
    at_once, tmp_path, small_run, merging, monkeypatch, unflushed
):
    merging(at_once)
    monkeypatch.setattr(merging_module, "_ROWS_PER_GROUP", 4)
    run = gradflow.open_run(small_run.record(tmp_path / "run", EPOCHS))
    whole = run.gradients
    for layer in [*small_run.layers, "a", "zz"]:
        history = run.layer_history("gradients", layer, ["norm", "nonfinite"])
        expected = whole[whole["layer"] == layer][["epoch", "step", "norm", "nonfinite"]]
        pd.testing.assert_frame_equal(history, expected.reset_index(drop=True), check_exact=True)


def test_row_groups_of_a_merged_part_admit_few_layers(tmp_path, small_run, merging, monkeypatch):
    merging(8)
    monkeypatch.setattr(merging_module, "_ROWS_PER_GROUP", 16)
    folder = small_run.record(tmp_path / "run", 8, tables=("gradients",))
    (part,) = folder.glob("gradients/*")
    metadata = pq.read_metadata(part)
    place = TABLES["gradients"].columns.index(
        next(quantity for quantity in TABLES["gradients"].columns if quantity.name == "layer")
    )
    groups = [metadata.row_group(index).column(place) for index in range(metadata.num_row_groups)]
    spans = [(group.statistics.min, group.statistics.max) for group in groups]
    assert spans == [("block.conv", "block.conv"), ("head", "head"), ("stem", "stem")]


def test_parts_that_would_be_too_large_together_are_left(tmp_path, small_run, merging, monkeypatch):
    merging(2)
    rows = len(small_run.layers) * small_run.steps
    monkeypatch.setattr(merging_module, "MAX_MERGED_ROWS", 2 * rows)
    folder = small_run.record(tmp_path / "run", 4, tables=("gradients",))
    names = [path.name[:6] for path in folder.glob("gradients/*")]
    assert names == ["merged", "merged"]


def test_rows_added_later_to_an_earlier_epoch_stop_the_merging_of_that_table(
    tmp_path, small_run, merging, unflushed
):
    merging(2)
    folder = small_run.record(tmp_path / "run", 3, tables=("gradients",))
    with RunWriter.reopen(folder) as writer:
        for epoch in (1, 2, 3):
            small_run.write(writer, epoch, epoch, tables=("predictions",))
        small_run.write(writer, 1, 1, tables=("predictions",))
    predictions = gradflow.open_run(folder).predictions
    assert list(predictions["epoch"]) == [1] * 8 + [2] * 4 + [3] * 4


def test_merging_goes_on_where_an_earlier_writer_ended(tmp_path, small_run, merging, unflushed):
    merging(2)
    whole = small_run.record(tmp_path / "whole", 8)
    parted = small_run.record(tmp_path / "parted", 3)
    with RunWriter.reopen(parted) as writer:
        small_run.write(writer, 4, 8)
    assert_same(small_run.tables(whole), small_run.tables(parted))
    assert {path.relative_to(whole) for path in whole.glob("*/*")} == {
        path.relative_to(parted) for path in parted.glob("*/*")
    }


@pytest.mark.parametrize("damage", ["flipped", "empty", "missing"])
def test_damaged_part_is_never_merged_and_writing_goes_on(
    damage, tmp_path, small_run, merging, unflushed
):
    merging(3)
    writer = RunWriter(tmp_path / "run", {})
    small_run.write(writer, 1, 1)
    (part,) = writer.folder.glob("gradients/*")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "missing":
        part.unlink()
    else:
        part.write_bytes(content if damage == "flipped" else b"")
    small_run.write(writer, 2, 7)
    writer.release()
    with RunWriter.reopen(writer.folder) as again:
        small_run.write(again, 8, 9)
    with pytest.raises(gradflow.errors.RunError, match=part.name):
        _ = gradflow.open_run(writer.folder).gradients
    assert list(gradflow.open_run(writer.folder).epochs["epoch"]) == list(range(1, 10))
