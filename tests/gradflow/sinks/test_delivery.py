"""No sink can stop or hold up the training: what fails or is slow is said once, and left."""

import csv
import json
import subprocess
import sys
import threading
import time
import warnings
from itertools import product

import pytest
import torch

import gradflow
from gradflow.errors import ConfigurationError
from gradflow.sinks import Function, Sink, delivery


class Broken(Sink):
    """Raises when it is told to."""

    kind = "broken"

    def __init__(self, at, error=OSError, **options):
        super().__init__(**options)
        self.at, self.error, self.calls = at, error, 0

    def fail(self, at):
        if at == self.at:
            self.calls += 1
            raise self.error("no space left")

    def attach(self):
        self.fail("attach")

    def open(self, run):
        self.fail("open")

    def write(self, step, scalars, histograms):
        self.fail("write")

    def close(self):
        self.fail("close")


def entries(run):
    return json.loads((run.folder / "run.json").read_text())["sinks"]


# An exit that a library asks for in a sink's thread is no end of the training.
@pytest.mark.parametrize(
    ("at", "error"),
    [
        *product(("attach", "open", "write", "close"), (OSError, KeyError)),
        ("open", SystemExit),
        ("write", SystemExit),
    ],
)
def test_a_failing_sink_is_reported_once_and_left(train, at, error):
    got = []
    broken = Broken(at, error)
    with pytest.warns(UserWarning, match="nothing more is sent to broken") as said:
        run, weights = train([broken, lambda *one: got.append(one)], steps=20)
    assert [str(one.message).count("no space left") for one in said] == [1]
    assert broken.calls == 1
    first, second = entries(run)
    assert "no space left" in first["problem"]
    assert "problem" not in second
    # The other sink, the run and the weights are as without it.
    assert len({step for _, _, step in got}) == 40
    assert run.description["status"] == "complete"
    _, plain = train(folder="plain", steps=20)
    assert all(torch.equal(weights[name], plain[name]) for name in plain)


def test_a_strict_tracer_does_not_take_a_sink_for_the_training(train):
    with pytest.warns(UserWarning, match="no space left"):
        run, _ = train(Broken("write"), strict=True)
    assert run.description["status"] == "complete"


def test_a_slow_sink_does_not_hold_up_the_training_and_what_does_not_fit_is_counted(
    train, monkeypatch
):
    monkeypatch.setattr(delivery, "MOST_WAITING", 1)
    monkeypatch.setattr(delivery, "CLOSING_SECONDS", 0.3)
    go_on, seen = threading.Event(), []

    def slow(name, value, step):
        seen.append(step)
        go_on.wait(30)

    began = time.monotonic()
    with pytest.warns(UserWarning, match="gradflow: function") as said:
        run, _ = train(Function(slow, quantities="step_gradient_norm"), epochs=1, steps=80)
    assert time.monotonic() - began < 20
    go_on.set()
    texts = [str(one.message) for one in said]
    assert sum("too slow" in text for text in texts) == 1
    assert sum("still writing" in text for text in texts) == 1
    assert len(texts) == 2
    # Five deliveries of sixteen steps, and the epoch: of these one was taken and one waited.
    (entry,) = entries(run)
    assert seen[0] == 0
    assert entry["dropped_steps"] in (48 + 1, 64 + 1)
    assert entry["problem"] == "still writing when the run ended"
    assert len(run.steps) == 80


def test_a_sink_that_hangs_while_it_opens_is_left_at_the_end(train, monkeypatch):
    monkeypatch.setattr(delivery, "CLOSING_SECONDS", 0.2)
    go_on = threading.Event()

    class Hanging(Broken):
        kind = "hanging"

        def open(self, run):
            go_on.wait(30)

    with pytest.warns(UserWarning, match="hanging was still writing after the end"):
        run, _ = train(Hanging(""))
    go_on.set()
    assert run.description["status"] == "complete"


def test_a_training_that_fails_keeps_its_own_error_and_what_was_recorded_is_written(
    tmp_path, train
):
    got = []
    with pytest.raises(ZeroDivisionError):
        train(lambda *one: got.append(one), schedule=lambda step: step < 4 or 1 / 0)
    assert {step for _, _, step in got} == {0, 1, 2}


TWO_PROCESSES = """
import sys
import torch
from torch import nn
import gradflow

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
)
torch.manual_seed(0)
model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
sink = gradflow.sinks.CSV(f"{folder}/rank{rank}.csv", quantities="*")
with gradflow.Tracer(model, f"{folder}/run", optimizer=optimizer, sinks=sink) as tracer:
    for step in range(3):
        optimizer.zero_grad()
        model(torch.full((3, 4), 1.0 + rank + step)).square().mean().backward()
        optimizer.step()
    tracer.end_epoch(train_loss=1.0)
torch.distributed.destroy_process_group()
"""


def test_of_several_processes_only_the_one_that_writes_sends_and_sends_the_whole(
    tmp_path, expected
):
    ranks = [
        subprocess.Popen([sys.executable, "-c", TWO_PROCESSES, str(rank), str(tmp_path)])
        for rank in range(2)
    ]
    assert [one.wait(120) for one in ranks] == [0, 0]
    assert [one.name for one in tmp_path.glob("rank*.csv")] == ["rank0.csv"]
    with (tmp_path / "rank0.csv").open(newline="") as file:
        got = {(one["name"], int(one["step"])): float(one["value"]) for one in csv.DictReader(file)}
    run = gradflow.open_run(tmp_path / "run")
    for table, column, quantity, row in (
        ("gradients", "norm", "gradient_norm", "layer"),
        ("parameters", "gradient_norm", "parameter_gradient_norm", "parameter"),
        ("steps", "gradient_norm", "step_gradient_norm", ""),
    ):
        known = expected(run, table, column, quantity, row)
        assert known
        assert {key: got[key] for key in known} == known


def test_without_sinks_no_thread_starts_and_with_one_it_ends(train):
    before = threading.active_count()
    seen = []
    train(Function(lambda *_: seen.append(threading.current_thread().name)))
    assert {*seen} == {"gradflow-function"}
    assert threading.active_count() == before
    started = []
    start = threading.Thread.start
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda one: (started.append(one), start(one)))
        train(folder="without")
    assert started == []


def test_run_json_says_where_everything_goes(train):
    sink = Function(print_nothing, quantities=["gradient_norm/*"], every="epoch", prefix="g")
    run, _ = train(sink)
    assert entries(run) == [
        {
            "kind": "function",
            "place": "print_nothing",
            "prefix": "g",
            "every": "epoch",
            "quantities": ["gradient_norm/*"],
        }
    ]
    run, _ = train(folder="without")
    assert "sinks" not in json.loads((run.folder / "run.json").read_text())


def print_nothing(name, value, step):
    assert name.startswith("g/")


@pytest.mark.parametrize("wrong", [3, "tensorboard", Sink, [None]])
def test_what_is_no_sink_is_refused_before_the_training(train, wrong):
    with pytest.raises(ConfigurationError, match="sinks= takes sinks such as"):
        train(wrong)


def test_options_of_sinks_are_checked():
    with pytest.raises(ConfigurationError, match='"step" or "epoch"'):
        Function(print_nothing, every="batch")


def test_warnings_as_errors_in_the_users_program_do_not_reach_the_thread(train):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = []
        train(lambda *one: got.append(one))
    assert got
