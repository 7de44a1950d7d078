"""Steps and epochs that one table lacks although others have them."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gradflow.runs.integrity.gaps import Gap, gaps_of
from gradflow.runs.writing.run import RunWriter


@pytest.fixture
def folder(tmp_path, small_run, merging, unflushed):
    merging(1000)
    return small_run.record(tmp_path / "run", 5)


def gaps(folder, *, finished=True):
    return gaps_of(sorted(folder.glob("*/*.parquet")), finished=finished)


def test_whole_run_has_none(folder):
    assert gaps(folder) == ()


def test_epochs_that_other_tables_have_are_missed_in_one_piece(folder):
    for part in sorted(folder.glob("epochs/*"))[1:3]:
        part.unlink()
    assert gaps(folder) == (Gap("epochs", "epoch", 2, 3),)


def test_steps_that_another_table_has_are_missed(folder):
    with RunWriter.reopen(folder) as writer:
        steps = list(range(10))
        columns = {"epoch": [1 + step // 2 for step in steps], "step": steps}
        columns |= {"scale": [1.0] * 10, "skipped": [False] * 10, "mode": ["training"] * 10}
        norms = ("loss", "backward_gradient_norm", "gradient_norm", "clipping_factor")
        columns |= dict.fromkeys(norms, [1.0] * 10)
        writer.append("steps", columns, 0, 9)
    first, *_, last = sorted(folder.glob("gradients/*"))
    first.unlink()
    last.unlink()
    found = gaps(folder)
    assert found == (Gap("gradients", "step", 0, 1), Gap("gradients", "step", 8, 9))
    assert [str(gap) for gap in found] == ["gradients: steps 0 to 1", "gradients: steps 8 to 9"]


def write_histograms(folder, table, steps):
    part = folder / table
    part.mkdir()
    columns = {"epoch": pa.array([1] * len(steps)), "step": pa.array(steps)}
    pq.write_table(pa.table(columns), part / "0.parquet")


def test_steps_chosen_for_histograms_are_not_missed_in_the_others(folder):
    write_histograms(folder, "activation_histograms", [0, 4, 8])
    write_histograms(folder, "gradient_histograms", [0, 8])
    assert gaps(folder) == (Gap("gradient_histograms", "step", 4, 4),)


def test_last_epoch_of_an_interrupted_run_is_not_missed(folder):
    sorted(folder.glob("epochs/*"))[-1].unlink()
    assert gaps(folder, finished=False) == ()
    assert gaps(folder) == (Gap("epochs", "epoch", 5, 5),)
    assert str(gaps(folder)[0]) == "epochs: epoch 5"
