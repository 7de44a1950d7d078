"""A CUDA graph of a step: what is captured is not recorded, and nothing of ours is in it.

Without a GPU the capture is simulated: steps run as ever, but the tracer is told that they are
captured. On a GPU a graph is captured and replayed.
"""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import gradflow
from gradflow.errors import TracingError


class Operations(TorchDispatchMode):
    """Counts the operations of torch, which a capture would put into the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        # A view starts no work.
        self.seen[name] += name not in ("detach", "alias", "view", "_unsafe_view", "t")
        return func(*args, **(kwargs or {}))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def train(model, optimizer):
    optimizer.zero_grad()
    model(torch.ones(5, 3)).square().sum().backward()
    optimizer.step()


def count_of_a_step(model, optimizer):
    with Operations() as operations:
        train(model, optimizer)
    return +operations.seen


def optimizers(kind, model):
    if kind == "one":
        return torch.optim.SGD(model.parameters(), lr=0.01)
    halves = [list(model[0].parameters()), list(model[2].parameters())]
    return [torch.optim.SGD(half, lr=0.01) for half in halves]


class Both:
    """Two optimizers that are called as one."""

    def __init__(self, pair):
        self.pair = pair

    def zero_grad(self):
        for one in self.pair:
            one.zero_grad()

    def step(self):
        for one in self.pair:
            one.step()


@pytest.mark.parametrize("kind", ["one", "two"])
@pytest.mark.parametrize("schedule", [1, lambda step: step != 2, lambda step: step == 3])
def test_a_captured_step_has_no_operation_of_the_tracer(tmp_path, monkeypatch, schedule, kind):
    def together(given):
        return given if kind == "one" else Both(given)

    model = network()
    expected = count_of_a_step(model, together(optimizers(kind, model)))
    model = network()
    given = optimizers(kind, model)
    captured = {2}
    with gradflow.Tracer(
        model, tmp_path / "run", optimizer=given, schedule=schedule, stop_on_nonfinite=True
    ) as tracer:
        monkeypatch.setattr(
            "gradflow.hooks.step_cycle.is_capturing", lambda: tracer.steps in captured
        )
        for step in range(5):
            if step not in captured:
                train(model, together(given))
                continue
            # Whether it is still captured is asked at the end of the step, too.
            captured.add(3)
            if callable(schedule):
                found = count_of_a_step(model, together(given))
            else:
                with pytest.warns(UserWarning, match="step 2 is captured in a CUDA graph"):
                    found = count_of_a_step(model, together(given))
            captured.remove(3)
            assert found == expected
    run = gradflow.open_run(tmp_path / "run")
    wanted = [s for s in range(5) if s != 2 and (not callable(schedule) or schedule(s))]
    for table in (run.steps, run.activations, run.gradients, run.parameters):
        assert sorted(set(table.step)) == wanted
    assert len(run.activations) == 3 * len(wanted)
    # What was kept of the gradients is older than a step: it is no previous gradient.
    after = run.parameters[run.parameters.step == 3]
    assert after.gradient_cosine.isna().all()


def test_the_training_goes_on_as_without_the_tracer(tmp_path, monkeypatch):
    weights = []
    for traced in (True, False):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        if traced:
            with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
                monkeypatch.setattr(
                    "gradflow.hooks.step_cycle.is_capturing", lambda: tracer.steps == 1
                )
                train(model, optimizer)
                with pytest.warns(UserWarning, match="CUDA graph"):
                    train(model, optimizer)
                train(model, optimizer)
        else:
            for _ in range(3):
                train(model, optimizer)
        weights.append(model.state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
    run = gradflow.open_run(tmp_path / "run")
    assert "captured in a CUDA graph" in run.description["not_recorded"][0]


def test_strict_refuses_a_capture(tmp_path, monkeypatch):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    monkeypatch.setattr("gradflow.hooks.step_cycle.is_capturing", lambda: True)
    with (
        pytest.raises(TracingError, match="captured in a CUDA graph"),
        gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, strict=True),
    ):
        train(model, optimizer)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.filterwarnings("ignore:gradflow:UserWarning")
def test_a_graph_of_a_whole_step_trains_as_without_the_tracer(tmp_path):
    weights = []
    for traced in (True, False):
        model = network().cuda()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        inputs = torch.ones(5, 3, device="cuda")

        def step(model=model, optimizer=optimizer, inputs=inputs):
            optimizer.zero_grad(set_to_none=True)
            model(inputs).square().sum().backward()
            optimizer.step()

        def whole(step=step):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    step()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
            for _ in range(4):
                graph.replay()

        if traced:
            with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, schedule=1):
                whole()
        else:
            whole()
        weights.append(model.state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
    run = gradflow.open_run(tmp_path / "run")
    assert sorted(set(run.gradients.step)) == [0, 1, 2]
    assert "captured in a CUDA graph" in run.description["not_recorded"][0]
