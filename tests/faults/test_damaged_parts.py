"""A damaged part is named, the rest is read, and a resumed training replaces the part."""

import shutil

import pytest
from fault_checks import check_end, table_of
from fault_injection import Circumstances, Fault, start

import gradflow
from gradflow.errors import RunError
from gradflow.runs.format.schema import TABLES


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def lose(path):
    path.unlink()


DAMAGES = [truncate, flip_a_bit, empty, lose]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_part_is_named_and_all_other_tables_are_read(damage, reference, tmp_path):
    folder = shutil.copytree(reference.folder, tmp_path / "experiment")
    part = sorted(folder.glob("*/gradients/*.parquet"))[0]
    damage(part)
    (run,) = gradflow.open_experiment(folder).runs
    with pytest.raises(RunError, match=part.name):
        run.table("gradients")
    for name in set(TABLES) - {"gradients"}:
        assert len(table_of(run, name)) == len(reference.tables[run.name, name])


@pytest.fixture(scope="module")
def ended(reference, tmp_path_factory):
    """A training ended in the third epoch: its rows are on disk, its state is not; small parts."""
    folder = tmp_path_factory.mktemp("ended") / "experiment"
    circumstances = Circumstances(Fault("memory", 5))  # each epoch has two validations
    training = start(reference.command(folder), folder, folder.with_name("log"), circumstances)
    assert training.wait() == 1
    return folder


@pytest.mark.parametrize(
    "damage", [truncate, lose, *(pytest.param(one, marks=pytest.mark.slow) for one in DAMAGES[1:3])]
)
def test_damage_after_the_last_state_is_made_good(damage, ended, reference, tmp_path):
    folder = shutil.copytree(ended, tmp_path / "experiment")
    parts = sorted(folder.glob("*/gradients/part-*.parquet"))
    assert len(parts) == 3
    damage(parts[-1])
    training = start(["--resume", str(folder)], folder, tmp_path / "log")
    assert training.wait() == 0, training.errors
    check_end(folder, reference)
