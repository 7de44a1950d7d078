"""`python -m gradflow.report A B`: one report on both, and what cannot be put together."""

import json
from pathlib import Path

import numpy as np
import pytest

from gradflow import report
from gradflow.runs.format.schema import TABLES
from gradflow.runs.writing.run import ExperimentWriter, RunWriter
from reports.terminal import COLUMNS

IMAGES = 40


def write_experiment(folder: Path, lr: float, fingerprints: str = "same", seeds=(1,)) -> Path:
    """An experiment of a plain and a residual network that validated on `IMAGES` images."""
    names = [f"{network}-seed{seed}" for seed in seeds for network in ("plain8", "resnet8")]
    ExperimentWriter(folder, {"created": "2025-05-03T14:05:09+00:00", "runs": names})
    for name in names:
        network, _, seed = name.partition("-seed")
        description = {
            "created": "2025-05-03T14:05:09+00:00",
            "network": network,
            "seed": int(seed),
            "classes": ["a", "b"],
            "configuration": {"lr": lr, "data": fingerprints},
        }
        writer = RunWriter(folder / name, description)
        everywhere = range(IMAGES)
        images = {
            "image": list(everywhere),
            "name": [f"{place}.png" for place in everywhere],
            "label": [place % 2 for place in everywhere],
            "subset": ["validation"] * IMAGES,
            "fingerprint": [f"{fingerprints}{place}" for place in everywhere],
        }
        writer.append("images", images, 0, 0)
        for epoch in (1, 2):
            step, right = 10 * epoch, 20 + (10 if network == "resnet8" else 0)
            epochs = {"epoch": [epoch], "step": [step], "val_accuracy": [right / IMAGES]}
            writer.append("epochs", epochs, step - 9, step)
            predicted = [place % 2 if place < right else 1 - place % 2 for place in everywhere]
            rows = {
                "epoch": [epoch] * IMAGES,
                "image": list(everywhere),
                "target": [place % 2 for place in everywhere],
                "prediction": predicted,
                "probability": [0.9] * IMAGES,
            }
            writer.append("predictions", rows, step - 9, step)
            weights = {
                "epoch": [epoch] * 10,
                "step": list(range(step - 9, step + 1)),
                "parameter": ["conv1.weight"] * 10,
                "weight_norm": list(lr * np.linspace(1, 1.1, 10)),
            }
            columns = [quantity.name for quantity in TABLES["parameters"].columns]
            missing = {name: [None] * 10 for name in columns if name not in weights}
            writer.append("parameters", weights | missing, step - 9, step)
        writer.close("complete")
    return folder


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """A folder to work in, whose `runs` holds two experiments."""
    monkeypatch.chdir(tmp_path)
    write_experiment(tmp_path / "runs" / "a", lr=0.1)
    write_experiment(tmp_path / "runs" / "b", lr=0.3)
    return tmp_path / "runs"


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def section(content, key):
    (found,) = [one for one in content["sections"] if one["key"] == key]
    return found


def bytes_below(folder: Path):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_experiments_become_one_report_in_a_folder_of_its_own(runs, capsys):
    before = bytes_below(runs)
    assert report.main(["a", "b", "--format", "html,json"]) == 0
    folder = runs / "comparison-a-b"
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json"]
    assert {
        path: content for path, content in bytes_below(runs).items() if path in before
    } == before
    content = read(folder / "report.json")
    networks = ["plain8 (lr 0.1)", "resnet8 (lr 0.1)", "plain8 (lr 0.3)", "resnet8 (lr 0.3)"]
    assert content["experiment"]["networks"] == networks
    assert content["experiment"]["folders"] == ["a", "b"]
    printed = capsys.readouterr().out
    assert "What differs between lr 0.1 and lr 0.3" in printed
    assert "runs/comparison-a-b/report.html" in printed
    assert max(map(len, printed.splitlines()[:-2])) <= COLUMNS


def test_what_changed_says_what_was_planted(runs):
    assert report.main(["a", "b", "--only", "what_changed", "--format", "json"]) == 0
    content = read(runs / "comparison-a-b" / "report-what_changed.json")
    (changed,) = content["sections"]
    for finding in changed["findings"]:
        assert finding["verdict"] == "supported"
        assert finding["estimates"][0]["value"] == pytest.approx(3)
    assert changed["tables"][0]["rows"] == [["lr", "0.1", "0.3"]]
    assert changed["command"] == "python -m gradflow.report a b --only what_changed"
    assert content["answer"][0]["verdict"] == "supported"


def test_pairs_are_matched_within_an_experiment_only(runs):
    assert report.main(["a", "b", "--only", "matched_comparison", "--format", "json"]) == 0
    content = read(runs / "comparison-a-b" / "report-matched_comparison.json")
    keys = [one["key"] for one in section(content, "matched_comparison")["findings"]]
    assert [key for key in keys if key.startswith("ahead")] == [
        "ahead-resnet8--lr-0-1-", "ahead-resnet8--lr-0-3-",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fingerprints", "status"), [("same", "answered"), ("other", "not_applicable")]
)
def test_networks_of_two_folders_are_matched_only_on_the_same_images(runs, fingerprints, status):
    write_experiment(runs / "c", lr=0.1, fingerprints=fingerprints)
    folders = ["a/plain8-seed1", "c/resnet8-seed1"]
    assert (
        report.main([*folders, "--only", "matched_comparison", "--format", "json", "--out", "o"])
        == 0
    )
    content = read(Path("o") / "report-matched_comparison.json")
    assert section(content, "matched_comparison")["status"] == status


def test_each_writes_one_report_a_folder(runs):
    assert report.main(["a", "b", "--each", "--format", "md"]) == 0
    assert (runs / "a" / "report.md").exists()
    assert (runs / "b" / "report.md").exists()
    assert not (runs / "comparison-a-b").exists()


def test_each_with_a_folder_to_write_into_keeps_them_apart(runs):
    assert report.main(["a", "b", "--each", "--format", "md", "--out", "reports-here"]) == 0
    found = sorted(str(path) for path in Path("reports-here").rglob("*.md"))
    assert found == ["reports-here/1-a/report.md", "reports-here/2-b/report.md"]


@pytest.mark.parametrize("second", ["a", "./runs/a", "runs/../runs/a"])
@pytest.mark.parametrize("options", [[], ["--each"]])
def test_the_same_folder_twice_is_one_sentence(runs, second, options, capsys):
    assert report.main(["runs/a", second, *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.endswith("named twice: name each folder once\n")
    assert error.count("\n") == 1


def test_an_experiment_with_a_run_of_its_own_is_one_sentence(runs, capsys):
    assert report.main(["a", "a/plain8-seed1"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: the run in {runs / 'a' / 'plain8-seed1'} is named twice")
    assert error.count("\n") == 1


def test_a_folder_that_is_not_there_is_one_sentence_and_nothing_is_written(runs, capsys):
    assert report.main(["a", "nowhere"]) == 1
    assert capsys.readouterr().err == (
        "error: there is no folder nowhere, and none in runs: name one by its path\n"
    )
    assert sorted(path.name for path in runs.iterdir()) == ["a", "b"]


def test_a_long_name_is_cut_and_no_other_comparison_has_it():
    names = [Path("x" * 90 + letter) for letter in "abc"]
    first = report.comparison_name(names[:2])
    assert first.startswith("comparison-xxx")
    assert len(first) == 80
    assert first != report.comparison_name(names[1:])
    assert report.comparison_name([Path("a"), Path("b")]) == "comparison-a-b"


def test_the_same_comparison_gives_the_same_bytes(runs):
    for place in ("first", "second"):
        assert report.main(["a", "b", "--format", "html,md,json", "--out", f"{place}/o"]) == 0
    first, second = (sorted(Path(place).rglob("report.*")) for place in ("first", "second"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
