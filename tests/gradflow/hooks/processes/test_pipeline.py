"""A pipeline is traced by stage: each process has the layers and parameters of its own."""

import importlib.util
import inspect
from pathlib import Path

import pytest
from torch.distributed import pipelining

import gradflow

SCRIPT = Path(__file__).with_name("pipeline_training.py")


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    training = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(training)
    folder = tmp_path_factory.mktemp("single") / "run"
    training.train_alone(folder)
    return gradflow.open_run(folder)


@pytest.mark.skipif(
    "scale_grads" not in inspect.signature(pipelining.ScheduleGPipe).parameters,
    reason="this torch divides by the number of micro-batches in any case",
)
@pytest.mark.parametrize("schedule", ["ScheduleGPipe", "Schedule1F1B"])
def test_each_stage_records_what_the_whole_model_does(
    launch, single, assert_same_rows, tmp_path, schedule
):
    result = launch(SCRIPT, tmp_path / "stage", schedule)
    assert result.returncode == 0, result.stderr
    runs = [gradflow.open_run(tmp_path / f"stage{stage}") for stage in (0, 1)]
    for stage, run in enumerate(runs):
        assert "not_recorded" not in run.description
        # The batch that the pipeline tries first, to learn the shapes, is no part of a step.
        assert run.description["backward_passes"] == {"recorded": 12, "left_out": 0}
        assert_same_rows(run, single, only=lambda name, stage=stage: (int(name[0]) >= 2) == stage)
    squares = sum(run.steps.backward_gradient_norm.to_numpy() ** 2 for run in runs)
    assert squares**0.5 == pytest.approx(single.steps.backward_gradient_norm.to_numpy(), rel=1e-5)
