"""Every kind of damage is found and named; after a repair the rest can be read."""

import json
import os
import shutil
import sys
import zipfile

import pytest

import gradflow
from gradflow.errors import RunError
from gradflow.runs.format.files import STATE_FILE
from gradflow.runs.format.manifest import MANIFEST_FILE, read_manifest, write_listed
from gradflow.runs.integrity import repair as repairing
from gradflow.runs.integrity.check import check_run, runs_in
from gradflow.runs.integrity.repair import repair
from gradflow.runs.writing.lock import FolderLock
from gradflow.runs.writing.run import ExperimentWriter


def save_weights(path):
    """An archive like those of `torch.save`."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"weights" * 99)


@pytest.fixture
def run(tmp_path, small_run, merging, unflushed):
    """Four epochs merged two by two, and a fifth; weights beside them."""
    merging(2)
    folder = small_run.record(tmp_path / "run", 5)
    write_listed(folder, folder / "best.pt", save_weights)
    assert check_run(folder).findings == ()
    return folder


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "flipped": (flip, "its checksum differs"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "truncated": (lambda path: os.truncate(path, 30), "it has 30 bytes, but"),
    "missing": (lambda path: path.unlink(), "missing"),
}


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize(
    "name",
    [
        "gradients/merged-0000000000-0000000007.parquet",
        "gradients/part-0000000008-0000000009.parquet",
    ],
)
def test_damaged_part_is_named_set_aside_and_the_rest_reads(kind, name, run, small_run):
    damage, reason = DAMAGES[kind]
    whole = small_run.tables(run)
    damage(run / name)
    damaged = (run / name).read_bytes() if kind != "missing" else None
    checked = check_run(run)
    (finding,) = checked.findings
    assert (finding.path, finding.kind) == (run / name, "damaged")
    assert reason in finding.reason
    repair(run)
    assert check_run(run).findings == ()
    if damaged is not None:
        assert (run / "damaged" / name).read_bytes() == damaged
    first, last = (0, 7) if "merged" in name else (8, 9)
    found = small_run.tables(run)
    kept = whole["gradients"][~whole["gradients"]["step"].between(first, last)]
    assert found["gradients"]["norm"].tolist() == kept["norm"].tolist()
    assert found["predictions"].equals(whole["predictions"])
    (entry,) = gradflow.open_run(run).description["set_aside"]
    assert (entry["table"], entry["first_step"], entry["last_step"]) == ("gradients", first, last)
    assert entry["file"] == name


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_weights_are_found(kind, run):
    damage, reason = DAMAGES[kind]
    damage(run / "best.pt")
    (finding,) = check_run(run).findings
    assert reason in finding.reason
    repair(run)
    assert check_run(run).findings == ()
    assert (run / "damaged" / "best.pt").exists() == (kind != "missing")


def test_what_an_interruption_left_does_no_harm_and_goes(run, small_run):
    whole = small_run.tables(run)
    part = run / "gradients" / "part-0000000010-0000000011.parquet"
    shutil.copy(run / "gradients" / "part-0000000008-0000000009.parquet", part)
    half = run / "gradients" / "merged-0000000000-0000000009.parquet"
    half.write_bytes(b"PAR1 not whole")
    (run / "gradients" / ".part.7.tmp").touch()
    kinds = {finding.path: finding.kind for finding in check_run(run).findings}
    assert kinds[part] == "unlisted"
    assert kinds[half] == kinds[run / "gradients" / ".part.7.tmp"] == "left over"
    repair(run)
    assert check_run(run).findings == ()
    assert read_manifest(run).lists(part)
    assert not half.exists()
    assert small_run.tables(run)["predictions"].equals(whole["predictions"])
    assert len(small_run.tables(run)["gradients"]) == len(whole["gradients"]) + 6


@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_manifest_is_listed_anew(damage, run, small_run):
    whole = small_run.tables(run)
    DAMAGES[damage][0](run / MANIFEST_FILE)
    assert [finding.path.name for finding in check_run(run).findings] == [MANIFEST_FILE]
    (done,) = repair(run)
    assert (done.path, done.what) == (run / MANIFEST_FILE, "rewritten")
    assert check_run(run).findings == ()
    for name, frame in small_run.tables(run).items():
        assert frame.equals(whole[name])


@pytest.mark.parametrize("content", ["", "{", "[1]", None])
def test_description_that_is_lost_is_written_anew(content, run, small_run):
    whole = small_run.tables(run)
    if content is None:
        (run / "run.json").unlink()
    else:
        (run / "run.json").write_text(content)
    (finding,) = check_run(run).findings
    assert finding.path == run / "run.json"
    repair(run)
    assert check_run(run).findings == ()
    assert small_run.tables(run)["gradients"].equals(whole["gradients"])
    assert (run / "damaged" / "run.json").exists() == (content is not None)


def test_damaged_state_is_found_and_a_spent_one_is_left_over(run):
    for step in (2, 4):
        (run / f"state-{step:010d}.pt").write_bytes(b"state")
    digest = "b2df8e2acaed7a1cd4ca09ccd1e8b5a80b0b9d6d1c50ba4df6c8ea9b6e5e8b5e"
    entry = {"file": "state-0000000004.pt", "sha256": digest, "step": 4}
    (run / STATE_FILE).write_text(json.dumps(entry))
    (finding,) = check_run(run).findings
    assert finding.kind == "damaged"
    assert "checksum of state-0000000004.pt" in finding.reason
    repair(run)
    assert check_run(run).findings == ()
    assert sorted(path.name for path in (run / "damaged").glob("state*")) == [
        "state-0000000002.pt",
        "state-0000000004.pt",
        "state.json",
    ]


def test_repair_interrupted_anywhere_can_be_done_again(
    run, tmp_path, small_run, monkeypatch, unflushed
):
    name = "gradients/part-0000000008-0000000009.parquet"
    flip(run / name)
    os.truncate(run / "best.pt", 3)
    at, interrupted = 0, True
    while interrupted:
        at += 1
        folder = shutil.copytree(run, tmp_path / f"{at}")
        try:
            with small_run.interrupted(monkeypatch, at):
                repair(folder)
            interrupted = False
        except small_run.interruption:
            repair(folder)
        assert check_run(folder).findings == ()
        assert (folder / "damaged" / name).read_bytes() == (run / name).read_bytes()
        assert (folder / "damaged" / "best.pt").exists()
        entries = gradflow.open_run(folder).description["set_aside"]
        assert sorted(entry["file"] for entry in entries) == ["best.pt", name]
    assert at > 6


def test_second_file_of_a_name_is_set_aside_beside_the_first(run):
    for content in (b"one", b"two"):
        write_listed(run, run / "best.pt", save_weights)
        (run / "best.pt").write_bytes(content)
        repair(run)
    assert (run / "damaged" / "best.pt").read_bytes() == b"one"
    assert (run / "damaged" / "best-2.pt").read_bytes() == b"two"


def test_run_that_is_being_written_is_not_repaired(run):
    with FolderLock(run), pytest.raises(RunError, match="is being written"):
        repair(run)


def test_file_behind_a_link_out_of_the_folder_is_not_touched(run, tmp_path):
    outside = (run / "gradients").rename(tmp_path / "outside")
    (run / "gradients").symlink_to(outside)
    before = {path: path.read_bytes() for path in outside.iterdir()}
    assert {finding.reason for finding in check_run(run).findings} == {
        "it lies outside the run's folder"
    }
    with pytest.raises(RunError, match="gradients leads out of"):
        repair(run)
    assert {path: path.read_bytes() for path in outside.iterdir()} == before


def test_experiment_is_repaired_run_by_run(tmp_path, small_run, unflushed):
    folder = tmp_path / "experiment"
    ExperimentWriter(folder, {"runs": ["a-seed1", "b-seed1", "c-seed1"]})
    for name in ("a-seed1", "b-seed1", "another"):
        small_run.record(folder / name, 1)
    runs, beside = runs_in(folder)
    assert [run.name for run in runs] == ["a-seed1", "b-seed1"]
    assert beside == []
    (folder / "experiment.json").write_text("{")
    flip(folder / "b-seed1" / "epochs" / "part-0000000000-0000000001.parquet")
    with pytest.raises(RunError):
        gradflow.open_experiment(folder)
    repair(folder)
    experiment = gradflow.open_experiment(folder)
    assert [run.name for run in experiment.runs] == ["a-seed1", "another", "b-seed1"]
    assert [len(run.epochs) for run in experiment.runs] == [1, 1, 0]


def test_a_run_that_is_a_link_out_of_its_experiment_is_not_looked_at(run, tmp_path):
    folder = tmp_path / "experiment"
    ExperimentWriter(folder, {"runs": ["a", "b"]})
    (folder / "unlisted").symlink_to(run)
    assert runs_in(folder) == ([], [])
    (folder / "b").symlink_to(run)
    with pytest.raises(RunError, match="b leads out of"):
        runs_in(folder)


@pytest.mark.parametrize("name", ["run.json", "manifest.jsonl"])
def test_what_describes_a_run_is_not_read_behind_a_link_out_of_it(run, tmp_path, name):
    (run / name).rename(tmp_path / name)
    (run / name).symlink_to(tmp_path / name)
    try:
        reasons = [finding.reason for finding in check_run(run).findings]
    except RunError as error:
        reasons = [str(error)]
    assert any("leads out of" in reason for reason in reasons)


def test_a_file_with_holes_is_too_large_without_being_read(run):
    part = run / "gradients" / "part-0000000008-0000000009.parquet"
    for name in ("listed", "unlisted"):
        if name == "unlisted":
            part = part.with_name("part-0000000010-0000000011.parquet")
            part.touch()
        os.truncate(part, 1 << 40)
        (finding,) = check_run(run).of_kind("damaged")
        assert finding.path == part
        assert "bytes, but" in finding.reason or "1,024.00 GiB" in finding.reason
        part.unlink() if name == "unlisted" else repair(run)


@pytest.mark.parametrize("name", ["a" * 5000, "..", "run.json", "a\0b", "state-x.pt", 5, None])
def test_a_state_of_a_name_that_none_has_is_damaged(run, name):
    (run / "state.json").write_text(json.dumps({"file": name, "sha256": ""}))
    (finding,) = check_run(run).of_kind("damaged")
    assert "state.json is damaged" in finding.reason or "cannot be read" in finding.reason
    repair(run)
    assert check_run(run).findings == ()


def test_folders_called_like_temporary_files_are_left_alone(run):
    (run / ".x.tmp").mkdir()
    (run / "gradients" / ".x.tmp").mkdir()
    (run / "state-0000000001.pt").mkdir()
    assert check_run(run).findings == ()
    assert repair(run) == []


def test_very_many_damaged_files_are_set_aside_with_one_change(run, monkeypatch):
    notes = []
    monkeypatch.setattr(repairing, "record_change", lambda *given, **named: notes.append(named))
    parts = list((run / "gradients").glob("*.parquet"))
    for path in parts:
        path.unlink()
    repair(run)
    assert [len(named["removed"]) for named in notes] == [len(parts)]
    assert len(parts) > 1


@pytest.mark.skipif(sys.platform != "linux", reason="names elsewhere are text")
def test_a_sound_run_is_not_set_aside_for_the_name_of_its_folder(run, tmp_path):
    odd = run.rename(tmp_path / "bad\udcff")
    before = {path: path.read_bytes() for path in odd.rglob("*") if path.is_file()}
    for look in (check_run, repair, gradflow.open_run, gradflow.open_experiment):
        with pytest.raises(
            RunError, match=r"bad.udcff cannot be opened: its name is not valid UTF-8"
        ):
            look(odd)
    assert {path: path.read_bytes() for path in odd.rglob("*") if path.is_file()} == before
