"""An instrument follows the tracer's steps, and its rows stand in the run."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from gradflow import Tracer
from gradflow.hooks.instruments.instrument import Instrument, Instruments
from gradflow.hooks.recording.records import Columns, StepRecord
from gradflow.runs.reading.run import open_run


class Counting(Instrument):
    """Counts what it is told; its count of backward passes is a column of the table steps."""

    key = "counting"

    def __init__(self) -> None:
        self.told: list[str] = []
        self.before = 0

    def begin_step(self, record: StepRecord | None) -> None:
        self.told.append("unrecorded" if record is None else "step")

    def forward_begins(self, record: StepRecord) -> None:
        self.told.append("forward")

    def backward_begins(self, record: StepRecord) -> None:
        self.told.append("backward")

    def end_step(self, record: StepRecord) -> None:
        record.further[self.key] = float(self.told.count("backward") + self.before)

    def columns(self, records: Sequence[StepRecord]) -> dict[str, Columns]:
        return {"steps": {"loss": np.ma.array([one.further[self.key] for one in records])}}

    def state_dict(self) -> dict[str, int]:
        return {"before": self.told.count("backward")}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.before = state.get("before", 0)

    def detach(self) -> None:
        self.told.append("detached")


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> list[Counting]:
    """The instruments of tracers made in the test, one each."""
    made: list[Counting] = []

    def one(*args: object) -> tuple[Instrument, ...]:
        made.append(Counting())
        return (made[-1],)

    monkeypatch.setattr("gradflow.hooks.tracer.instruments_of", one)
    return made


def train(tracer: Tracer, model: nn.Module, steps: int) -> None:
    for _ in range(steps):
        model(torch.ones(2, 3)).sum().backward()
        model(torch.ones(2, 3)).sum().backward()
        tracer.step()


def test_it_is_told_of_recorded_steps_and_their_passes(tmp_path, counting):
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    with Tracer(model, tmp_path, schedule=2) as tracer:
        train(tracer, model, 2)
        tracer.end_epoch()
    passes = ["forward", "backward"] * 2
    assert counting[0].told == ["step", *passes, "unrecorded", "step", "step", "detached"]
    assert open_run(tmp_path).steps["loss"].tolist() == [2.0]


def test_a_tracer_that_continues_gets_the_state_back(tmp_path, counting):
    model = nn.Linear(3, 2)
    with Tracer(model, tmp_path) as tracer:
        train(tracer, model, 1)
        tracer.end_epoch()
        state = tracer.state_dict()
    with Tracer(model, tmp_path, resume=state) as tracer:
        train(tracer, model, 1)
        tracer.end_epoch()
    assert open_run(tmp_path).steps["loss"].tolist() == [2.0, 4.0]


def test_what_is_wrong_of_several_processes_is_left_out_and_named():
    said: list[str] = []
    together = Instruments([Counting()], processes=2)
    together.report_left_out(lambda kind, message: said.append(message))
    together.begin_step(None)
    assert said == ["not recorded of several processes: counting"]
    assert together.state_dict() == {}
