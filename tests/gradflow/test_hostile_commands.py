"""Commands with invalid options or folders: one sentence on stderr, exit code 1 or 2."""

import json
import os
import shutil

import pytest
import torch

from gradflow import probe, report, train_and_trace
from gradflow.runs import __main__ as runs
from gradflow.runs.reading.locating import newest_experiment

SMALL = ["--models", "plain20", "--epochs", "1", "--batch-size", "8", "--probes", "none"]


def check(arguments):
    return runs.main(["check", *arguments])


COMMANDS = {
    "train": train_and_trace.main,
    "probe": probe.main,
    "report": report.main,
    "check": check,
}


def status_of(command, arguments):
    try:
        return COMMANDS[command](arguments)
    except SystemExit as exit_:  # what tyro does
        return exit_.code


def refused(capsys, command, arguments, code=1):
    capsys.readouterr()
    assert status_of(command, arguments) == code
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    if code == 1:
        sentence = said.err.removesuffix("\n")
        assert sentence.startswith("error: ")
        assert sentence.isprintable()  # one line
    return said.err


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--lr", "inf"], 1),
        (["--lr", "nan"], 1),
        (["--lr", "1e400"], 1),
        (["--lr", ""], 2),
        (["--epochs", "1e3"], 2),
        (["--epochs", "9" * 5000], 2),
        (["--epochs", "9" * 4000], 1),
        (["--batch-size", "-1"], 1),
        (["--batch-size", "99999999999"], 1),
        (["--seeds", "-1"], 1),
        (["--seeds", str(2**80)], 1),
        (["--seeds"], 1),
        (["--image-size", "1000000000"], 1),
        (["--validation-fraction", "1e-320"], 1),
        (["--skip-scale", "inf"], 1),
        (["--models", "\u202eplain20"], 1),
        (["--models", ""], 1),
        (["--probes", "\x1b[31m"], 1),
        (["--norm", "layer"], 2),
        (["--data", ""], 1),
        (["--data", "\udcff"], 1),
        (["--data", "a" * 100_000], 1),
        (["--data", "~nobody-of-this-name"], 1),
        (["--data", "/dev/null"], 1),
        (["--out", "/dev/null/x"], 1),
        (["--out", "a\0b"], 1),
        (["--resume", ""], 1),
        (["--resume", "\n"], 1),
        (["--resume", "a" * 5000], 1),
        (["--resume", "a\0b"], 1),
        (["--out", "a" * 5000], 1),
        (["--device", "tpu"], 2),
    ],
)
def test_training_refuses_impossible_options(images, capsys, tmp_path, monkeypatch, options, code):
    monkeypatch.chdir(tmp_path)
    given_data = [] if "--data" in options or "--resume" in options else ["--data", str(images)]
    basis = [] if "--resume" in options else SMALL
    refused(capsys, "train", [*basis, *given_data, *options], code)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["", "nowhere", "a\0b", "\udcff", "x" * 5000, "/dev/null", "~"])
@pytest.mark.parametrize("command", ["probe", "report", "check"])
def test_probe_and_report_refuse_a_folder_without_a_run(
    capsys, tmp_path, monkeypatch, command, folder
):
    monkeypatch.chdir(tmp_path)
    refused(capsys, command, [folder])
    assert list(tmp_path.iterdir()) == []


def test_an_impossible_folder_of_experiments_is_refused(capsys, tmp_path):
    said = refused(capsys, "report", [str(tmp_path), "--runs-folder", "a\0b"])
    assert "cannot be opened: embedded null byte" in said


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "experiment"
    arguments = [*SMALL, "--data", str(images), "--out", str(folder), "--no-recalibrate"]
    assert train_and_trace.main(arguments) == 0
    return folder


@pytest.fixture
def experiment(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "experiment")


def change(path, **entries):
    content = json.loads(path.read_text())
    content["configuration"] |= entries
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"epochs": "1"}, "the configuration's epochs must be a whole number"),
        ({"models": ["../../x"]}, "there is no network called"),
        ({"data": ["digits"]}, "the configuration's data must be text"),
        ({"image_size": 1e9}, "the configuration's image_size must be"),
        ({"image_size": 16384, "data": "digits"}, "memory|images"),
        ({"out": {}}, "the configuration's out must be text or null"),
    ],
)
def test_a_changed_configuration_is_refused(capsys, experiment, entries, message):
    change(experiment / "experiment.json", **entries)
    run = experiment / "plain20-seed2025"
    change(run / "run.json", **entries)
    assert any(
        part in refused(capsys, "train", ["--resume", str(experiment)])
        for part in message.split("|")
    )
    if "models" not in entries:
        said = refused(capsys, "probe", [str(run), "--probes", "noise_scale"])
        assert any(part in said for part in message.split("|"))


def test_weights_of_another_network_end_the_probe_in_a_sentence(capsys, experiment):
    weights = experiment / "plain20-seed2025" / "best.pt"
    torch.save({"state_dict": {"x": torch.zeros(1)}, "epoch": 1}, weights)
    said = refused(capsys, "probe", [str(experiment), "--probes", "path_lengths"])
    assert "best.pt cannot be" in said


def test_an_unknown_device_or_probe_is_refused(capsys, experiment):
    refused(capsys, "probe", [str(experiment), "--device", "tpu"])
    refused(capsys, "probe", [str(experiment), "--probes", "<b>"])


@pytest.mark.parametrize("name", [".lock", "manifest.jsonl"])
def test_a_link_in_a_run_is_not_written_through(capsys, experiment, tmp_path, name):
    kept = tmp_path / "kept"
    kept.write_text("kept")
    path = experiment / "plain20-seed2025" / name
    path.unlink(missing_ok=True)
    path.symlink_to(kept)
    refused(capsys, "probe", [str(experiment), "--probes", "noise_scale"])
    assert kept.read_text() == "kept"


def test_the_newest_experiment_is_found_among_invalid_descriptions(tmp_path):
    contents = (
        "[" * 100_000,
        '{"schema_version": 1, "created": 5}',
        "",
        '{"created": "2020-01-01"}',
    )
    for number, content in enumerate(contents):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "run.json").write_text(content)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "run.json")
    (tmp_path / "good").mkdir()
    description = {"schema_version": 1, "created": "2020-01-01T00:00:00+00:00"}
    (tmp_path / "good" / "run.json").write_text(json.dumps(description))
    assert newest_experiment(tmp_path) == tmp_path / "good"
