"""The programs of the page for those who come from another tool run, and give the same numbers."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import gradflow
from gradflow.runs.format.schema import TABLES

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "coming-from.md"
PARTS = re.split(r"^## (.+)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
TRAINING, WITH_GRADFLOW = re.findall(r"```python\n(.*?)```", PARTS[0], re.DOTALL)
PROGRAMS = {
    heading: re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for heading, text in zip(PARTS[1::2], PARTS[2::2], strict=True)
}
STEPS = range(0, 10, 2)
PARAMETERS = ("0.weight", "0.bias", "2.weight", "2.bias")


def run_programs(*programs: str) -> dict:
    names: dict = {}
    exec("\n".join([TRAINING, *programs]), names)
    return names


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_programs(WITH_GRADFLOW)
    return gradflow.open_run("runs/digits")


def norms_of_parameters(run: gradflow.Run) -> dict[str, list[float]]:
    rows = run.parameters.sort_values("step").groupby("parameter").gradient_norm
    return {name: values.tolist() for name, values in rows}


def same(theirs: dict, ours: dict) -> None:
    assert theirs.keys() == ours.keys() == set(PARAMETERS)
    for name, values in ours.items():
        assert len(values) == len(STEPS)
        np.testing.assert_allclose(theirs[name], values, rtol=1e-5)


def test_own_hooks(run):
    norms = run_programs(*PROGRAMS["Hooks of your own"])["norms"]
    ours = run.gradients.sort_values("step").groupby("layer").norm
    assert set(norms) == {"0", "1", "2"}
    for layer, values in ours:
        np.testing.assert_allclose(np.array(norms[layer])[STEPS], values, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_tensorboard(run):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import (  # noqa: PLC0415
        EventAccumulator,
    )

    run_programs(*PROGRAMS["TensorBoard"])
    events = EventAccumulator("runs/tensorboard")
    events.Reload()
    theirs = {
        tag.removeprefix("gradient_norm/"): [one.value for one in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }
    same(theirs, norms_of_parameters(run))


@pytest.mark.filterwarnings("ignore")
def test_lightning(run):
    pytest.importorskip("lightning")
    theirs, with_gradflow = PROGRAMS["Lightning's grad_norm"]
    logger = run_programs(theirs)["logger"]
    logged = pd.read_csv(Path(logger.log_dir) / "metrics.csv").set_index("step")
    logged.columns = [one.removeprefix("grad_2.0_norm/model.") for one in logged.columns]
    ours = norms_of_parameters(run)
    same(logged.loc[STEPS, list(PARAMETERS)].to_dict("list"), ours)
    # The same training once more, traced by the callback.
    definitions = theirs.partition("logger = ")[0]
    run_programs(definitions, with_gradflow)
    traced = norms_of_parameters(gradflow.open_run("runs/with-lightning"))
    same({name.removeprefix("model."): values for name, values in traced.items()}, ours)


@pytest.mark.filterwarnings("ignore")
def test_cockpit(run):
    pytest.importorskip("cockpit")
    cockpit = run_programs(*PROGRAMS["Cockpit"])["cockpit"]
    norms = [cockpit.get_output()[step]["GradNorm"] for step in STEPS]
    theirs = {name: [one[place] for one in norms] for place, name in enumerate(PARAMETERS)}
    same(theirs, norms_of_parameters(run))


@pytest.mark.filterwarnings("ignore")
def test_wandb(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    run_programs(*PROGRAMS["wandb.watch"])
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_the_page_says_how_many_numbers_there_are_of_a_gradient():
    said = re.findall(r"\[(\d+) numbers\]", PAGE.read_text(encoding="utf-8"))
    assert {int(number) for number in said} == {len(TABLES["gradients"].quantities)}
