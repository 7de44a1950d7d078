"""The training command on data with a split of its own, imbalanced, with copies and bad files."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import balanced_accuracy_score

import gradflow
from gradflow.train_and_trace import main
from gradflow.training import loop
from gradflow.training.evaluation import Evaluation
from gradflow.training.experiment import _new_folder

OPTIONS = ["--models", "plain20", "--batch-size", "4", "--probes", "none", "--device", "cpu"]


@pytest.fixture(scope="module")
def split_folder(tmp_path_factory):
    """train: 8 bright, 4 dark; val: 4 bright, 2 dark, of which one bright is also in train."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    generator = np.random.default_rng(0)
    for side, factor in (("train", 2), ("val", 1)):
        for name, level, count in (("bright", 180, 4), ("dark", 40, 2)):
            (folder / side / name).mkdir(parents=True)
            for index in range(factor * count):
                pixels = level + generator.integers(0, 60, (16, 16, 3))
                path = folder / side / name / f"{index}.png"
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    shutil.copy(folder / "train/bright/0.png", folder / "val/bright/0.png")
    return folder


def test_the_terminal_says_what_a_careful_person_asks(split_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = tmp_path / "out"
    options = ["--epochs", "2", "--data", str(split_folder), "--out", str(out)]
    assert main([*OPTIONS, *options, "--validation-fraction", "0.5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines if str(tmp_path) not in line)
    text = " ".join(" ".join(lines).split())
    assert "11 to train on, 6 to validate on" in text
    assert "the folder's own split is used: train trains, val validates" in text
    assert "--validation-fraction has no effect on data with a split of their own" in text
    assert "also validation images, byte for byte: 1 (train/bright/0.png = val/bright/0.pn" in text
    assert "from 6 images (dark) to 11 (bright); to answer always bright would be 66.7% acc" in text
    assert all(" bal " in line and " re " in line for line in lines if line.startswith("epoch "))
    assert "balanced" in text

    run = gradflow.open_run(out / "plain20-seed2025")
    subsets = run.images.groupby(["subset", "label"]).size().to_dict()
    assert subsets == {
        ("training", 0): 7,
        ("training", 1): 4,
        ("validation", 0): 4,
        ("validation", 1): 2,
    }
    for epoch, rows in run.predictions.groupby("epoch"):
        expected = balanced_accuracy_score(rows.target, rows.prediction)
        assert run.epochs.set_index("epoch").val_balanced_accuracy[epoch] == pytest.approx(expected)
    images = json.loads((run.folder / "run.json").read_text())["images"]
    assert (images["per_class"], images["own_split"]) == ([11, 6], True)
    assert len(images["notes"]) == 2


def test_balanced_classes_are_shown_as_before(images, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([*OPTIONS, "--epochs", "1", "--data", str(images), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "re-est." in text
    assert " bal " not in text
    assert "imbalanced" not in text
    assert "val_balanced_accuracy" in gradflow.open_run(out / "plain20-seed2025").epochs


@pytest.mark.parametrize(
    ("data", "begin"),
    [
        ("torchvision:MNIST", "torchvision-MNIST-2"),
        ("torchvision:MNIST@/data/x.y", "torchvision-MNIST-2"),
        ("photos/list.csv", "list-2"),
    ],
)
def test_an_experiment_is_named_by_its_data(data, begin):
    assert _new_folder(data).name.startswith(begin)


class Interruption(BaseException):
    """An exception that no code catches."""


def interrupted(monkeypatch, arguments):
    def interrupt(*_, **__):
        raise Interruption

    with monkeypatch.context() as patch:
        patch.setattr(loop, "discard_state", interrupt)
        with pytest.raises(Interruption):
            main(arguments)


def test_a_run_on_data_read_by_options_is_resumed_with_the_same_images(
    split_folder, tmp_path, monkeypatch, capsys
):
    data = shutil.copytree(split_folder, tmp_path / "data")
    (data / "train" / "dark" / "broken.png").write_bytes(b"")
    out = tmp_path / "out"
    arguments = [*OPTIONS, "--epochs", "1", "--data", str(data), "--out", str(out)]
    assert main(arguments) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "train/dark/broken.png is not a readable image" in said
    assert said.endswith("or leave it out with --on-bad-data skip")
    interrupted(monkeypatch, [*arguments, "--on-bad-data", "skip"])
    assert main(["--resume", str(out), "--layout", "classes"]) == 1
    assert "are not those that" in " ".join(capsys.readouterr().err.split())
    assert main(["--resume", str(out)]) == 0
    run = gradflow.open_run(out / "plain20-seed2025")
    assert run.description["status"] == "complete"
    assert run.configuration["on_bad_data"] == "skip"
    # moved, and under other names of the sides
    moved = shutil.move(data, tmp_path / "moved")
    (tmp_path / "moved" / "val").rename(tmp_path / "moved" / "valid")
    assert main(["--resume", str(out), "--data", str(moved)]) == 0


def test_probes_read_the_data_as_the_training_did(split_folder, tmp_path):
    from gradflow.probe import main as probe  # noqa: PLC0415 - it loads captum

    (tmp_path / "data").mkdir()
    rows = ["id,kind"]
    for path in sorted(split_folder.rglob("train/*/*.png")):
        name = f"{path.parent.name}{path.stem}"
        shutil.copy(path, tmp_path / "data" / f"{name}.png")
        rows.append(f"{name},{path.parent.name}")
    (tmp_path / "data" / "labels.csv").write_text("\n".join(rows))
    out = tmp_path / "out"
    options = ["--epochs", "1", "--data", str(tmp_path / "data"), "--out", str(out)]
    assert main([*OPTIONS, *options, "--columns", "image=id", "label=kind"]) == 0
    assert probe([str(out), "--probes", "sharpness"]) == 0
    assert len(gradflow.open_run(out / "plain20-seed2025").table("sharpness"))


@pytest.mark.parametrize("seed", range(5))
def test_balanced_accuracy_is_that_of_scikit_learn(seed):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 4, (50,), generator=generator).clamp(max=2) + 1
    prediction = torch.randint(0, 5, (50,), generator=generator)
    found = Evaluation(torch.arange(50), target, prediction, torch.ones(50), loss=0.0)
    # It warns of predicted classes that do not occur.
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        expected = balanced_accuracy_score(target, prediction)
    assert found.balanced_accuracy == pytest.approx(expected)
