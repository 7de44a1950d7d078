"""Weights that we did not write: their code is not run, and weights that do not fit are refused."""

import ast
import os
import pickle
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch
from torch import nn

import gradflow
from gradflow.errors import RunError
from gradflow.training import checkpoints
from gradflow.training.state import load_state, save_state

PACKAGE = Path(gradflow.__file__).parent


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return os.system, (f"touch {self.witness}",)


def test_every_file_that_torch_loads_is_loaded_as_weights_only():
    calls = [
        (path.name, call)
        for path in sorted(PACKAGE.rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "torch.load"
    ]
    assert {name for name, _ in calls} == {"checkpoints.py", "transformers.py", "ultralytics.py"}
    for name, call in calls:
        options = {option.arg: ast.unparse(option.value) for option in call.keywords}
        assert options.get("weights_only") == "True", name


def test_nothing_in_the_package_unpickles():
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {
            name.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in [*node.names, ast.alias(getattr(node, "module", None) or "")]
        }
        assert not imported & {"pickle", "dill", "joblib", "shelve", "marshal"}, path


@pytest.mark.parametrize("legacy", [True, False])
def test_a_pickle_bomb_is_refused_and_does_not_run(tmp_path, legacy):
    path, witness = tmp_path / "best.pt", tmp_path / "ran"
    content = {"state_dict": Bomb(witness), "epoch": 1}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(RunError, match=r"weights at .*best\.pt cannot be read: "):
        checkpoints.load(path)
    assert not witness.exists()
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(RunError, match="cannot be read"):
        checkpoints.load(path)
    assert not witness.exists()


def test_a_pickle_bomb_in_a_state_does_not_run_either(tmp_path):
    witness = tmp_path / "ran"
    save_state(tmp_path, {"model": Bomb(witness)}, 3)
    with pytest.raises(RunError, match=r"the state in .* cannot be read"):
        load_state(tmp_path)
    assert not witness.exists()


def test_a_compressed_file_is_refused_before_it_fills_the_memory(tmp_path):
    torch.save({"state_dict": {"weight": torch.zeros(1 << 20)}, "epoch": 1}, tmp_path / "whole.pt")
    with (
        ZipFile(tmp_path / "whole.pt") as whole,
        ZipFile(tmp_path / "best.pt", "w", ZIP_DEFLATED) as small,
    ):
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
    assert (tmp_path / "best.pt").stat().st_size < 1 << 14
    with pytest.raises(RunError, match="it is compressed"):
        checkpoints.load(tmp_path / "best.pt")


def archive_of(pickled, path):
    with ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")


@pytest.mark.parametrize("called", ["builtins\nbytearray", "torch\nTensor", "torch\nFloatTensor"])
def test_names_that_could_allocate_any_memory_are_not_called(tmp_path, called):
    number = (1 << 50).to_bytes(8, "little")
    archive_of(
        b"\x80\2c" + called.encode() + b"\n\x8a\x08" + number + b"\x85R.", tmp_path / "best.pt"
    )
    with pytest.raises(RunError, match=f"it holds {called.split()[0]} .*, but weights never do"):
        checkpoints.load(tmp_path / "best.pt")


def test_a_file_with_two_states_is_refused(tmp_path):
    archive_of(b"\x80\2].", tmp_path / "best.pt")
    with ZipFile(tmp_path / "best.pt", "a") as archive:
        archive.writestr("archive/DATA.PKL", b"\x80\2].")
    with pytest.raises(RunError, match="it does not hold exactly one state"):
        checkpoints.load(tmp_path / "best.pt")


def test_an_archive_behind_weights_of_the_old_format_is_refused(tmp_path):
    old, new = tmp_path / "old.pt", tmp_path / "new.pt"
    content = {"state_dict": {"weight": torch.zeros(2)}, "epoch": 1}
    torch.save(content, old, _use_new_zipfile_serialization=False)
    torch.save(content, new)
    (tmp_path / "best.pt").write_bytes(old.read_bytes() + new.read_bytes())
    with pytest.raises(RunError, match="it is not a zip archive"):
        checkpoints.load(tmp_path / "best.pt")


def test_a_file_with_holes_is_not_read_into_memory(tmp_path):
    with (tmp_path / "best.pt").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RunError, match=r"best\.pt would take 1,024\.00 GiB of memory"):
        checkpoints.load(tmp_path / "best.pt")
    (tmp_path / "best.pt").rename(tmp_path / "state-0000000003.pt")
    (tmp_path / "state.json").write_text('{"file": "state-0000000003.pt", "sha256": ""}')
    with pytest.raises(RunError, match=r"state-0000000003\.pt would take 1,024\.00 GiB"):
        load_state(tmp_path)


def test_weights_behind_a_link_out_of_the_run_are_not_read(tmp_path):
    (tmp_path / "run").mkdir()
    checkpoints.save(tmp_path / "outside.pt", nn.Linear(2, 2), epoch=1)
    (tmp_path / "run" / "best.pt").symlink_to(tmp_path / "outside.pt")
    with pytest.raises(RunError, match=r"best\.pt leads out of"):
        checkpoints.load(tmp_path / "run" / "best.pt")


@pytest.mark.parametrize(
    "content",
    [[], {}, {"state_dict": {}}, {"state_dict": [], "epoch": 1}, {"state_dict": {}, "epoch": "1"}],
)
def test_a_file_without_weights_or_epoch_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "best.pt")
    with pytest.raises(RunError, match="it lacks weights or their epoch"):
        checkpoints.load(tmp_path / "best.pt")


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"weight": torch.zeros(3, 3), "bias": torch.zeros(2)},
        {"weight": 5, "bias": "x"},
        {1: torch.zeros(2)},
    ],
)
def test_weights_of_another_network_are_refused_in_one_line(tmp_path, state):
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "best.pt")
    with pytest.raises(
        RunError, match=r"best.pt cannot be used .*: it belongs to another network"
    ) as raised:
        checkpoints.restore(tmp_path / "best.pt", nn.Linear(2, 2))
    assert str(raised.value).isprintable()


def test_weights_that_fit_are_put_into_the_network(tmp_path):
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    checkpoints.save(tmp_path / "best.pt", first, epoch=1)
    checkpoints.restore(tmp_path / "best.pt", second)
    assert torch.equal(first.weight, second.weight)


def test_files_with_other_names_are_not_weights_of_an_epoch(tmp_path):
    (tmp_path / checkpoints.FOLDER).mkdir()
    for name in ("epoch-abc.pt", "epoch-.pt", "epoch--1.pt", "epoch-0002.pt"):
        (tmp_path / checkpoints.FOLDER / name).write_bytes(b"")
    assert list(checkpoints.available(tmp_path)) == [2]
