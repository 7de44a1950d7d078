"""The training command as a user runs it, on small real images, and its errors."""

import json
import shutil

import pytest
import torch

import gradflow
from gradflow.models import build
from gradflow.train_and_trace import main
from gradflow.training import checkpoints, loop

SMALL = ["--models", "plain20", "resnet20", "--epochs", "2", "--batch-size", "8"]


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "experiment"
    options = ["--trace-every", "1", "--device", "cpu", "--out", str(folder)]
    assert main([*SMALL, "--data", str(images), *options]) == 0
    return folder


def test_an_experiment_holds_a_complete_run_for_each_network(finished):
    experiment = gradflow.open_experiment(finished)
    assert experiment.networks == ["plain20", "resnet20"]
    for run in experiment.runs:
        assert run.description["status"] == "complete"
        assert run.classes == ["bright", "dark"]
        assert run.configuration["batch_size"] == 8
        assert list(run.epochs.epoch) == [1, 2]
        assert sorted(set(run.gradients.step)) == list(range(6))
        assert run.epochs.step.tolist() == [2, 5]
        for table in (run.activation_histograms, run.gradient_histograms):
            assert table.step.unique().tolist() == [0, 3]
    assert experiment.runs[0].junctions.empty
    assert len(experiment.runs[1].junctions) == 6 * 9


def test_recorded_accuracy_is_that_of_the_recorded_predictions(finished):
    for run in gradflow.open_experiment(finished).runs:
        for table, column in (
            ("predictions", "val_accuracy"),
            ("recalibration", "recalibrated_val_accuracy"),
        ):
            rows = getattr(run, table)
            right = (rows.prediction == rows.target).groupby(rows.epoch).mean()
            assert list(right) == pytest.approx(list(run.epochs[column]))
        validation = set(run.images[run.images.subset == "validation"].image)
        assert set(run.predictions.image) == validation
        labels = run.images.set_index("image").label
        assert (labels[run.predictions.image].to_numpy() == run.predictions.target).all()


def test_both_networks_see_the_same_split(finished):
    plain, resnet = gradflow.open_experiment(finished).runs
    assert plain.images.equals(resnet.images)


def test_best_checkpoint_gives_the_recorded_accuracy_again(finished, images):
    run = gradflow.open_experiment(finished).runs[1]
    checkpoint = torch.load(run.folder / checkpoints.BEST, weights_only=True)
    best = run.epochs.set_index("epoch").val_accuracy
    assert checkpoint["val_accuracy"] == best.max()
    assert checkpoint["epoch"] == best.idxmax()
    model = build("resnet20", classes=2, seed=0)
    model.load_state_dict(checkpoint["state_dict"])


def test_two_runs_of_one_seed_are_the_same(finished, images, tmp_path):
    again = tmp_path / "again"
    options = ["--trace-every", "1", "--device", "cpu", "--data", str(images), "--out", str(again)]
    main(["--models", "resnet20", "--epochs", "2", "--batch-size", "8", *options])
    first = gradflow.open_run(finished / "resnet20-seed2025")
    second = gradflow.open_run(again / "resnet20-seed2025")
    for table in ("gradients", "parameters", "junctions", "predictions", "recalibration"):
        assert getattr(first, table).equals(getattr(second, table)), table


def test_histograms_can_be_left_out(images, tmp_path):
    options = ["--models", "plain20", "--epochs", "1", "--probes", "none", "--no-histograms"]
    main([*options, "--batch-size", "8", "--data", str(images), "--out", str(tmp_path / "x")])
    (run,) = gradflow.open_experiment(tmp_path / "x").runs
    assert run.activation_histograms.empty
    assert len(run.gradients)


def test_output_fits_80_columns_and_names_the_next_command(images, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    main([*SMALL, "--data", str(images), "--out", str(tmp_path / "x")])
    output = capsys.readouterr().out
    assert f"python -m gradflow.report {tmp_path / 'x'}" in output
    lines = [line for line in output.splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("epoch 1/2") for line in lines) == 2
    assert sum("* best" in line for line in lines if line.startswith("epoch")) >= 2


def fails(arguments, capsys):
    """Check that the command ends with status 1; return its message on standard error."""
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert status == 1
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.out + captured.err
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--models", "resnet35"], "resnet34"),
        (["--data", "no-such-folder"], "no-such-folder"),
        (["--batch-size", "5000"], "5000"),
    ],
)
def test_bad_options_cost_one_sentence_and_write_nothing(arguments, message, capsys, tmp_path):
    assert message in fails([*arguments, "--out", tmp_path / "x"], capsys)
    assert not (tmp_path / "x").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is present here")
def test_cuda_asked_for_and_absent(capsys, tmp_path):
    assert "--device cuda" in fails(["--device", "cuda", "--out", tmp_path / "x"], capsys)


def broken_folders(folder, images):
    yield "empty", "no", lambda path: path.mkdir()
    yield "one class", "class", lambda path: shutil.copytree(images / "dark", path / "dark")

    def single(path):
        shutil.copytree(images, path)
        for image in sorted((path / "dark").iterdir())[1:]:
            image.unlink()

    yield "a class of one", "dark", single

    def corrupt(path):
        shutil.copytree(images, path)
        (path / "dark" / "3.png").write_bytes(b"\x89PNG but no picture")

    yield "corrupt", "3.png", corrupt

    def absent(path):
        shutil.copytree(images / "dark", path)
        (path / "train.csv").write_text("filename,label\n0.png,a\n1.png,b\nlost.png,a\n")

    yield "csv with an absent file", "lost.png", absent

    def lacking(path):
        shutil.copytree(images / "dark", path)
        (path / "train.csv").write_text("filename,kind\n0.png,a\n")

    yield "csv without label", "label", lacking


def test_bad_images_cost_one_sentence(images, tmp_path, capsys):
    for name, message, make in broken_folders(tmp_path, images):
        make(tmp_path / name)
        sentence = fails(["--data", tmp_path / name, "--out", tmp_path / "x"], capsys)
        assert message in sentence, name
    assert not (tmp_path / "x").exists()


def test_a_folder_that_holds_a_run_is_left_as_it_is(finished, images, capsys):
    before = (finished / "experiment.json").read_text()
    sentence = fails([*SMALL, "--data", images, "--out", finished], capsys)
    assert "already holds an experiment" in sentence
    assert (finished / "experiment.json").read_text() == before


def test_an_interrupt_keeps_what_was_recorded(images, tmp_path, capsys, monkeypatch):
    evaluated = []
    evaluate = loop.evaluate

    def interrupt_in_the_second_epoch(model, job):
        evaluated.append(1)
        if len(evaluated) == 3:  # epoch 1 validates twice: with and without re-estimation
            raise KeyboardInterrupt
        return evaluate(model, job)

    monkeypatch.setattr(loop, "evaluate", interrupt_in_the_second_epoch)
    folder = tmp_path / "x"
    status = main([*SMALL, "--data", str(images), "--trace-every", "1", "--out", str(folder)])
    assert status == 130
    assert f"go on with --resume {folder}" in capsys.readouterr().err
    run = gradflow.open_experiment(folder).runs[0]
    assert run.description["status"] == "interrupted"
    assert list(run.epochs.epoch) == [1]
    assert sorted(set(run.gradients.step)) == list(range(6))
    assert (run.folder / checkpoints.BEST).exists()


def test_no_memory_left_costs_one_sentence_and_keeps_what_was_recorded(
    images, tmp_path, capsys, monkeypatch
):
    evaluated = []
    evaluate = loop.evaluate

    def need_a_petabyte_in_the_second_epoch(model, job):
        evaluated.append(1)
        if len(evaluated) == 3:
            torch.empty(1 << 50, dtype=torch.uint8)
        return evaluate(model, job)

    monkeypatch.setattr(loop, "evaluate", need_a_petabyte_in_the_second_epoch)
    folder = tmp_path / "x"
    error = fails([*SMALL, "--data", images, "--out", folder], capsys)
    assert "out of memory (" in error
    assert "1125899906842624 bytes" in error
    assert f"go on with --resume {folder}" in error
    assert list(gradflow.open_experiment(folder).runs[0].epochs.epoch) == [1]


def test_help_names_every_option_with_its_default(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    for option in (
        "--data",
        "--models",
        "--epochs",
        "--batch-size",
        "--lr",
        "--weight-decay",
        "--seeds",
        "--image-size",
        "--device",
        "--out",
    ):
        assert option in text
    assert "0.0005" in text


def test_run_json_says_what_was_done(finished):
    content = json.loads((finished / "plain20-seed2025" / "run.json").read_text())
    assert content["images"]["training"] + content["images"]["validation"] == 24
    assert content["versions"]["torch"] == str(torch.__version__)
    assert content["device"] == "cpu"
