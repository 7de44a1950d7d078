"""The training command that also writes to TensorBoard and others, as a user runs it."""

import csv
import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import gradflow
from gradflow.sinks import libraries
from gradflow.train_and_trace import main
from gradflow.training import experiment

OPTIONS = ["--epochs", "2", "--batch-size", "8", "--probes", "none", "--no-recalibrate"]
QUANTITIES = ["--sink-quantities", "step_gradient_norm", "gradient_norm/*.conv1"]
RUNS = ["plain20-seed1", "plain20-seed2"]


@pytest.fixture(scope="module")
def resumed(images, tmp_path_factory):
    """A network with two seeds, interrupted in the second run, and resumed."""
    folder = tmp_path_factory.mktemp("out")
    place = folder / "places"
    options = ["--models", "plain20", "--seeds", "1", "2", *QUANTITIES]
    sinks = ["--sinks", "tensorboard", f"csv={place}"]
    patch = pytest.MonkeyPatch()
    done = []

    def interrupt(*arguments):
        done.append(arguments)
        if len(done) == 3:
            raise KeyboardInterrupt

    patch.setattr("gradflow.training.console.ConsoleProgress.on_epoch_end", interrupt)
    data = ["--data", str(images), "--out", str(folder / "mine"), "--trace-every", "1"]
    try:
        assert main([*OPTIONS, *options, *data, *sinks]) == 130
    finally:
        patch.undo()
    assert main(["--resume", str(folder / "mine")]) == 0
    return folder


def test_each_run_has_a_place_of_its_own_with_the_numbers_of_the_run(resumed):
    runs = gradflow.open_experiment(resumed / "mine").runs
    assert [run.name for run in runs] == RUNS
    for run in runs:
        with (resumed / "places" / "mine" / f"{run.name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        norms = {int(r["step"]): float(r["value"]) for r in rows if "step_gradient" in r["name"]}
        assert norms == dict(zip(run.steps.step, run.steps.gradient_norm, strict=True))
        assert {row["name"].rpartition("/")[0] for row in rows} == {
            "gradflow",
            "gradflow/gradient_norm",
        }


def test_a_resumed_run_goes_on_where_it_was_written_to(resumed):
    for run in gradflow.open_experiment(resumed / "mine").runs:
        found = EventAccumulator(str(run.folder / "tensorboard"), size_guidance={"scalars": 0})
        found.Reload()
        events = found.Scalars("gradflow/step_gradient_norm")
        assert [one.step for one in events] == list(run.steps.step)
        entries = [(one["kind"], one["path"]) for one in run.description["sinks"]]
        there = f"../../places/mine/{run.name}.csv"
        assert entries == [("TensorBoard", "tensorboard"), ("CSV", there)]


def test_the_choice_is_kept_in_the_configuration(resumed):
    recorded = json.loads((resumed / "mine" / RUNS[1] / "run.json").read_text())["configuration"]
    assert recorded["sinks"] == ["tensorboard", f"csv={resumed / 'places'}"]
    assert recorded["sink_quantities"] == QUANTITIES[1:]
    assert recorded["sink_every"] == "step"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["excel"], "--sinks knows no excel: name one or several of tensorboard, wandb"),
        (["csv", "csv=there"], "--sinks names a sink twice"),
        (["none", "csv"], "--sinks none stands alone, but was given with others"),
        (["csv="], "--sinks has nothing after csv="),
        (["csv", "--sink-quantities", "gradientnorm"], "'gradientnorm' fits no quantity"),
        (["wandb"], "wandb is not installed, and 0.20 or newer is needed: pip install"),
        (["tensorboard=used"], "has gradflow's event files already"),
    ],
)
def test_what_cannot_be_done_is_said_before_images_are_read(
    tmp_path, monkeypatch, capsys, options, said
):
    monkeypatch.chdir(tmp_path)
    used = tmp_path / "used" / "out" / "plain20-seed1"
    used.mkdir(parents=True)
    (used / "events.out.tfevents.1.gradflow").touch()
    monkeypatch.setattr(libraries, "find_spec", lambda name: name != "wandb" or None)
    monkeypatch.setattr(libraries, "version", lambda name: "99")
    monkeypatch.setattr(experiment, "load", lambda *_, **__: pytest.fail("images were read"))
    arguments = ["--models", "plain20", "--seeds", "1", "--out", "out", "--sinks", *options]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert said in error
    assert (error.startswith("error: "), error.count("\n")) == (True, 1)
    assert not (tmp_path / "out").exists()


def test_sinks_can_be_left_out_when_a_training_is_resumed(resumed, monkeypatch, capsys):
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    assert main(["--resume", str(resumed / "mine")]) == 1
    assert "tensorboard is not installed" in capsys.readouterr().err
    assert main(["--resume", str(resumed / "mine"), "--sinks", "none"]) == 0
