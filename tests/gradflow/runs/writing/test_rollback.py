"""A rolled-back run equals one recorded only so far, and can be continued."""

import shutil

import pandas as pd
import pytest

from gradflow.errors import RunError
from gradflow.runs.format.manifest import read_manifest, record_change
from gradflow.runs.writing.rollback import roll_back
from gradflow.runs.writing.run import RunWriter

EPOCHS = 7


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, frame in first.items():
        pd.testing.assert_frame_equal(frame, second[name], check_exact=True)


@pytest.fixture(params=[2, 3, 1000])
def merged(request, tmp_path, small_run, merging, unflushed):
    merging(request.param)
    return small_run.record(tmp_path / "merged", EPOCHS)


def test_at_every_epoch_it_equals_a_run_recorded_so_far(merged, tmp_path, small_run):
    whole = small_run.tables(merged)
    for epoch in range(1, EPOCHS + 2):
        folder = shutil.copytree(merged, tmp_path / f"{epoch}")
        expected = {
            name: frame[frame["epoch"] < epoch].reset_index(drop=True)
            for name, frame in whole.items()
        }
        if epoch == 2:  # the only epoch without this scalar is the first
            expected["epochs"] = expected["epochs"].dropna(axis=1)
        removed = roll_back(folder, epoch, (epoch - 1) * small_run.steps)
        found = small_run.tables(folder)
        for name, frame in found.items():
            left = frame.dropna(axis=1, how="all")
            pd.testing.assert_frame_equal(left, expected[name], check_exact=True)
        assert found.keys() == {name for name, frame in expected.items() if len(frame)}
        rows = [sum(map(len, tables.values())) for tables in (whole, found)]
        assert removed == rows[0] - rows[1]
        with RunWriter.reopen(folder) as writer:
            small_run.write(writer, epoch, EPOCHS)
        assert_same(whole, small_run.tables(folder))


@pytest.mark.parametrize("epoch", [1, 2, 4, 5])
def test_interrupted_anywhere_it_leaves_a_readable_run_and_can_be_done_again(
    epoch, tmp_path, small_run, merging, monkeypatch, unflushed
):
    merging(3)
    merged = small_run.record(tmp_path / "merged", 4, tables=("gradients", "predictions"))
    whole = small_run.tables(merged)
    step = (epoch - 1) * small_run.steps
    done = False
    points = 0
    while not done:
        points += 1
        folder = shutil.copytree(merged, tmp_path / f"{points}")
        try:
            with small_run.interrupted(monkeypatch, points):
                roll_back(folder, epoch, step)
            done = True
        except small_run.interruption:
            pass
        for name, frame in small_run.tables(folder).items():
            full = whole[name]
            rows = pd.concat([full, frame]).drop_duplicates()
            assert len(rows) == len(full), "a row that was never recorded"
            assert not frame.duplicated().any()
            assert (frame["epoch"] < epoch).sum() == (full["epoch"] < epoch).sum()
        roll_back(folder, epoch, step)
        with RunWriter.reopen(folder) as writer:
            small_run.write(writer, epoch, 4, tables=("gradients", "predictions"))
        assert_same(whole, small_run.tables(folder))
    assert points > (2 if epoch < 5 else 0)


def test_what_an_interruption_left_over_is_removed(tmp_path, small_run):
    folder = small_run.record(tmp_path / "run", 2)
    (part, _) = sorted(folder.glob("gradients/*"))
    left = [folder / ".run.json.7.tmp", folder / "gradients" / ".part.7.tmp", part]
    for path in left[:2]:
        path.write_bytes(b"half")
    record_change(folder, removed=[part])
    roll_back(folder, 3, 2 * small_run.steps)
    assert not any(path.exists() for path in left)


def test_damaged_part_beyond_goes_and_one_that_holds_both_is_named(
    tmp_path, small_run, merging, unflushed
):
    merging(2)
    folder = small_run.record(tmp_path / "run", 3, tables=("gradients",))
    merged, last = sorted(folder.glob("gradients/*"))
    last.write_bytes(b"")
    roll_back(folder, 3, 2 * small_run.steps)
    assert not last.exists()
    merged.write_bytes(merged.read_bytes()[:-1])
    with pytest.raises(RunError, match=merged.name):
        roll_back(folder, 2, small_run.steps)
    assert read_manifest(folder).lists(merged)
