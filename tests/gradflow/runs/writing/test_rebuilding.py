"""A missing or damaged manifest is rebuilt from the existing files."""

import shutil

import pandas as pd
import pytest

from gradflow.runs.format.manifest import MANIFEST_FILE, read_manifest
from gradflow.runs.writing.rebuilding import rebuild_manifest
from gradflow.runs.writing.run import RunWriter


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, frame in first.items():
        pd.testing.assert_frame_equal(frame, second[name], check_exact=True)


@pytest.fixture
def merged(tmp_path, small_run, merging, unflushed):
    merging(2)
    return small_run.record(tmp_path / "merged", 5)


def test_rebuilt_manifest_lists_what_the_lost_one_did(merged):
    before = read_manifest(merged)
    (merged / MANIFEST_FILE).unlink()
    assert rebuild_manifest(merged) == []
    after = read_manifest(merged)
    assert after.files.keys() == before.files.keys()
    assert all(set(after.files[name]) <= set(before.files[name]) for name in after.files)


def test_parts_that_an_interruption_left_beside_the_merged_one_count_once(
    merged, tmp_path, small_run, merging
):
    whole = small_run.tables(merged)
    merging(1000)
    parts = small_run.record(tmp_path / "parts", 5)
    for path in parts.glob("*/*.parquet"):
        shutil.copy(path, merged / path.relative_to(parts))
    (merged / MANIFEST_FILE).write_bytes(b"nonsense\n")
    spent = rebuild_manifest(merged)
    # The fifth epoch was never merged.
    assert {path.name.split("-")[1] for path in spent} == {f"{2 * i:010d}" for i in range(4)}
    assert_same(whole, small_run.tables(merged))


def test_rows_added_later_to_an_earlier_epoch_count_too(tmp_path, small_run, merging, unflushed):
    merging(2)
    folder = small_run.record(tmp_path / "run", 2, tables=("gradients",))
    for probe, parts in (("a", ((0, 1), (2, 3))), ("b", ((2, 3),))):
        with RunWriter.reopen(folder) as writer:
            for first, last in parts:
                epoch = 1 + first // 2
                columns = {"epoch": [epoch], "probe": [probe], "seconds": [1.0], "skipped": [None]}
                writer.append("probe_costs", columns, first, last)
    (folder / MANIFEST_FILE).unlink()
    assert rebuild_manifest(folder) == []
    costs = small_run.tables(folder)["probe_costs"]
    assert sorted(zip(costs["epoch"], costs["probe"], strict=True)) == [
        (1, "a"),
        (2, "a"),
        (2, "b"),
    ]


def test_merged_part_that_cannot_be_read_takes_no_place(merged, tmp_path, small_run, merging):
    merging(1000)
    parts = small_run.record(tmp_path / "parts", 5)
    for path in parts.glob("epochs/*.parquet"):
        shutil.copy(path, merged / path.relative_to(parts))
    for path in merged.glob("epochs/merged*"):
        path.write_bytes(path.read_bytes()[:50])
    (merged / MANIFEST_FILE).unlink()
    assert rebuild_manifest(merged) == []
