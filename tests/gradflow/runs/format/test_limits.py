"""Run folders made by an attacker: nothing is read or written outside, and memory is bounded."""

import json
import os
import shutil
import tracemalloc

import pytest

import gradflow
from gradflow.errors import ConfigurationError, RunError
from gradflow.runs.format.limits import LARGEST_DESCRIPTION, LARGEST_MANIFEST, LIMIT_VARIABLE
from gradflow.runs.format.limits import memory_limit as limit
from gradflow.runs.format.manifest import MANIFEST_FILE
from gradflow.runs.writing.run import ExperimentWriter, RunWriter

PART = "part-0000000000-0000000002.parquet"


@pytest.fixture
def folder(tmp_path):
    """A run of one epoch, and a file outside of it."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("kept")
    with RunWriter(tmp_path / "run", {"network": "net", "seed": 7}) as writer:
        writer.append("epochs", {"epoch": [1], "step": [2], "train_loss": [0.5]}, 0, 2)
    return tmp_path / "run"


def outside(folder):
    place = folder.parent / "outside"
    return {path.name: path.read_bytes() for path in place.iterdir()}


def describe(folder, **entries):
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def refused(folder, message):
    with pytest.raises(RunError, match=message) as raised:
        _ = gradflow.open_experiment(folder).runs[0].epochs
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a":' * 1_000_000, "cannot be read"),
        ("[" * 1_000_000 + "]" * 1_000_000, "cannot be read"),
        (
            '{"schema_version": 1, "a": ' + "[" * 40 + "]" * 40 + "}",
            "nested more than 32 levels deep",
        ),
        ('{"schema_version": 1, "seed": NaN}', "NaN is not a number in JSON"),
        ('{"schema_version": 1, "lr": -Infinity}', "-Infinity is not a number in JSON"),
        ('{"schema_version": 1, "lr": 1e999}', "1e999 is too large for a number"),
        ('{"schema_version": ' + "1" * 10_000 + "}", "more than 100 digits"),
        ('{"schema_version": 1, "network": "\\ud800"}', "cannot be read"),
        ('{"schema_version": true}', "names no schema version"),
        ('{"schema_version": 1.0}', "names no schema version"),
    ],
)
def test_json_that_is_too_deep_too_large_or_no_number_is_refused(folder, text, message):
    (folder / "run.json").write_text(text)
    refused(folder, message)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("network", ["a"]),
        ("network", {"a": 1}),
        ("seed", "7"),
        ("seed", 1.5),
        ("seed", 10**30),
        ("seed", True),
        ("classes", "abc"),
        ("classes", [["a"]]),
        ("classes", {"a": 1}),
        ("configuration", []),
        ("configuration", "epochs"),
        ("status", 5),
        ("created", {}),
        ("resumed", [1]),
        ("first_nonfinite", "layer"),
        ("sinks", ["tensorboard"]),
    ],
)
def test_an_entry_of_another_type_is_refused_by_name(folder, entry, value):
    describe(folder, **{entry: value})
    refused(folder, f"its {entry} is not ")


@pytest.mark.parametrize("entry", ["network", "status", "created"])
def test_a_name_that_a_report_cannot_repeat_is_refused(folder, entry):
    describe(folder, **{entry: "a" * 1024})
    assert gradflow.open_run(folder).description[entry] == "a" * 1024
    describe(folder, **{entry: "a" * 1025})
    refused(folder, f"its {entry} is not text of at most 1,024 characters")


def test_entries_added_by_users_are_kept(folder):
    describe(folder, mine={"a": [1, None, 2.5]}, classes=["a", 2], configuration=None, seed=None)
    run = gradflow.open_run(folder)
    assert run.description["mine"] == {"a": [1, None, 2.5]}
    assert (run.classes, run.configuration, run.seed) == (["a", "2"], {}, None)


def test_a_description_of_500_mb_is_refused_without_reading_it(folder):
    with (folder / "run.json").open("r+b") as file:
        file.truncate(500 << 20)  # sparse: takes no room
    tracemalloc.start()
    refused(folder, f"it has more than {LARGEST_DESCRIPTION:,} bytes")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * LARGEST_DESCRIPTION


def test_a_manifest_of_500_mb_is_refused_without_reading_it(folder):
    os.truncate(folder / MANIFEST_FILE, 500 << 20)
    refused(folder, f"it has more than {LARGEST_MANIFEST:,} bytes")


@pytest.mark.parametrize("name", ["run.json", f"epochs/{PART}"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    refused(folder, "it is not a file")


@pytest.mark.parametrize(
    "name",
    ["../outside", "../../etc", "/etc", "", ".", "..", "a/b", "a/", "/a", "a\0b", 5, None],
)
def test_an_experiment_names_no_run_outside_of_it(folder, tmp_path, name):
    shutil.copytree(folder, tmp_path / "outside", dirs_exist_ok=True)
    ExperimentWriter(tmp_path / "exp", {"runs": [name]})
    with pytest.raises(RunError, match="its runs is not a list of names of folders within it"):
        gradflow.open_experiment(tmp_path / "exp")


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (None, "has no run yet"),
        (["a" * 5000], "File name too long"),
        (["a"] * 1000, "its runs is not a list of .*, each once"),
    ],
)
def test_an_experiment_whose_runs_cannot_be_is_refused(tmp_path, runs, message):
    ExperimentWriter(tmp_path / "exp", {"runs": runs})
    with pytest.raises(RunError, match=message):
        gradflow.open_experiment(tmp_path / "exp")


def test_a_run_that_is_a_link_out_of_its_experiment_is_refused(folder, tmp_path):
    ExperimentWriter(tmp_path / "exp", {"runs": ["a"]})
    (tmp_path / "exp" / "a").symlink_to(folder)
    with pytest.raises(RunError, match=r"exp/a leads out of .*exp: replace the link"):
        gradflow.open_experiment(tmp_path / "exp")


def test_an_experiment_may_itself_be_reached_by_a_link(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert len(gradflow.open_run(tmp_path / "link").epochs) == 1


def linked_part(folder):
    target = folder.parent / "outside" / PART
    shutil.move(folder / "epochs" / PART, target)
    (folder / "epochs" / PART).symlink_to(target)


def linked_table(folder):
    shutil.move(folder / "epochs" / PART, folder.parent / "outside" / PART)
    (folder / "epochs").rmdir()
    (folder / "epochs").symlink_to(folder.parent / "outside")


def named_outside(folder):
    shutil.copy(folder / "epochs" / PART, folder.parent / "outside" / PART)
    lines = (folder / MANIFEST_FILE).read_text()
    (folder / MANIFEST_FILE).write_text(lines.replace("epochs/", "epochs/../../outside/"))


@pytest.mark.parametrize(
    ("lead_out", "message"),
    [
        (linked_part, "leads out of"),
        (linked_table, "leads out of"),
        (named_outside, "manifest.jsonl is damaged"),
    ],
)
def test_a_part_outside_of_the_folder_is_neither_read_nor_removed(folder, lead_out, message):
    lead_out(folder)
    before = outside(folder)
    refused(folder, message)
    with pytest.raises(RunError, match=message):
        RunWriter.resume(folder, epoch=1, step=0)
    assert outside(folder) == before


@pytest.mark.parametrize(
    ("name", "target"),
    [(MANIFEST_FILE, "kept"), (".lock", "kept"), ("epochs", ""), ("checkpoints", "")],
)
def test_nothing_is_written_through_a_link_out_of_the_folder(folder, name, target):
    path = folder / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(folder.parent / "outside" / target)
    before = outside(folder)
    with pytest.raises(RunError, match="leads out of"):
        RunWriter.reopen(folder)
    assert outside(folder) == before


def test_a_planted_link_in_place_of_a_temporary_file_is_not_written_through(folder):
    before = outside(folder)
    name = PART.replace("0002", "0005")
    link = folder / "epochs" / f".{name}.{os.getpid()}.tmp"
    link.symlink_to(folder.parent / "outside" / "kept")
    with RunWriter.reopen(folder) as writer:
        writer.describe(status="complete")
        writer.append("epochs", {"epoch": [2], "step": [5], "train_loss": [0.1]}, 0, 5)
    assert outside(folder) == before


@pytest.mark.parametrize("given", ["0", "-1", "nan", "many", "1e400"])
def test_an_invalid_limit_is_refused(monkeypatch, given):
    monkeypatch.setenv(LIMIT_VARIABLE, given)
    with pytest.raises(ConfigurationError, match=f"{LIMIT_VARIABLE} must be a number of GiB"):
        limit()


def test_the_limit_is_4_gib_or_what_the_environment_says(monkeypatch):
    monkeypatch.delenv(LIMIT_VARIABLE, raising=False)
    assert limit() == 4 << 30
    monkeypatch.setenv(LIMIT_VARIABLE, "0.5")
    assert limit() == 1 << 29
