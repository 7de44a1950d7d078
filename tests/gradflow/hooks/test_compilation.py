"""Compiled models: recorded steps run uncompiled, the others compiled and untouched."""

import gc

import pandas as pd
import pytest
import torch
from torch import nn
from torch._dynamo import eval_frame
from torch._dynamo.utils import counters
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    CheckpointImpl,
    checkpoint_wrapper,
)

import gradflow
from gradflow.hooks.observation.hook import Hook

# torch.compile looks at `grad` of tensors wherever it goes from one piece to the next.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")

TABLES = ("layers", "activations", "gradients", "junctions", "parameters")
STEPS, RECORDED = 7, [0, 3, 6]


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, width)

    def forward(self, x):
        return x + torch.relu(self.linear(self.norm(x)))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), Block(8), Block(8), nn.Linear(8, 2))


def wrapped(model, **options):
    return torch.compile(model, **options)


def in_place(model, **options):
    model.compile(**options)
    return model


def by_region(model, **options):
    for place in (1, 2):
        model[place] = torch.compile(model[place], **options)
    return model


def by_region_in_place(model, **options):
    for place in (1, 2):
        model[place].compile(**options)
    return model


def inside_the_step(model, **options):
    """Not the model is compiled, but the user's function that calls it."""

    @torch.compile(**options)
    def call(inputs):
        return model(inputs)

    return call


WAYS = (wrapped, in_place, by_region, by_region_in_place, inside_the_step)


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()
    counters.clear()
    yield
    assert eval_frame._stance.stance == "default"
    torch.compiler.reset()


def train(called, tracer, optimizer=None, steps=STEPS):
    optimizer = optimizer or tracer_optimizer(called)
    for step in range(steps):
        inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        called(inputs).square().mean().backward()
        optimizer.step()
    tracer.end_epoch()


def tracer_optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


def trace(model, folder, way=None, *, when="before", **options):
    """The run of `model`, compiled by `way` before or after the tracer is entered."""
    optimizer = tracer_optimizer(model)
    called = way(model, **options) if way and when == "before" else model
    if way and when == "before":
        called(torch.ones(5, 3)).sum().backward()
        optimizer.zero_grad()
    graphs = counters["stats"]["unique_graphs"]
    given = called if isinstance(called, nn.Module) else model
    with gradflow.Tracer(given, folder, optimizer=optimizer, schedule=3) as tracer:
        if way and when == "after":
            called = way(model, **options)
        train(called, tracer, optimizer)
    return gradflow.open_run(folder), counters["stats"]["unique_graphs"] - graphs


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("way", WAYS)
def test_a_compiled_model_is_recorded_as_the_same_model_uncompiled(tmp_path, way, when):
    expected, _ = trace(network(), tmp_path / "plain")
    run, _ = trace(network(), tmp_path / "run", way, when=when, backend="eager", fullgraph=True)
    for table in TABLES:
        mine, theirs = getattr(run, table), getattr(expected, table)
        assert len(mine) > 0
        pd.testing.assert_frame_equal(mine, theirs, rtol=1e-6)
    assert sorted(run.activations.step.unique()) == RECORDED
    assert "not_recorded" not in run.description


@pytest.mark.parametrize("way", WAYS)
def test_tracing_makes_no_new_graph_and_breaks_none(tmp_path, way):
    untraced = network()
    called = way(untraced, backend="aot_eager", fullgraph=True)
    called(torch.ones(5, 3)).sum().backward()
    graphs = counters["stats"]["unique_graphs"]
    assert graphs > 0
    for when, new in (("before", 0), ("after", graphs)):
        torch.compiler.reset()
        counters.clear()
        folder = tmp_path / when
        _, more = trace(network(), folder, way, when=when, backend="aot_eager", fullgraph=True)
        assert more == new
        assert not counters["graph_break"]


def test_steps_that_are_not_recorded_run_compiled_and_without_hooks(tmp_path):
    model, compiled_calls, hooks = network(), [], []

    def backend(graph, _):
        return lambda *given: compiled_calls.append(1) or graph(*given)

    called = torch.compile(model, backend=backend)
    optimizer = tracer_optimizer(model)
    with gradflow.Tracer(called, tmp_path / "run", optimizer=optimizer, schedule=3) as tracer:
        ran = []
        for _ in range(STEPS):
            before = len(compiled_calls)
            hooks.append(any(module._forward_hooks for module in model.modules()))
            train(called, tracer, optimizer, steps=1)
            ran.append(len(compiled_calls) > before)
    assert ran == [step not in RECORDED for step in range(STEPS)]
    assert hooks == [step in RECORDED for step in range(STEPS)]


def test_the_gradients_of_a_recorded_step_are_those_of_autograd(tmp_path):
    model, reference = network(), network()
    run, _ = trace(model, tmp_path / "run", wrapped, backend="eager")
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    hidden = reference[0](inputs)
    loss = reference[3](reference[2](reference[1](hidden))).square().mean()
    (by_hand,) = torch.autograd.grad(loss, hidden)
    row = run.gradients.query("step == 0 and layer == '0'")
    assert row.norm.item() == pytest.approx(float(by_hand.norm()), rel=1e-6)


def test_accumulated_passes_of_a_recorded_step_run_in_one_stance(tmp_path):
    runs = {}
    for name in ("plain", "run"):
        model = network()
        called = model if name == "plain" else torch.compile(model, backend="eager")
        optimizer = tracer_optimizer(model)
        with gradflow.Tracer(called, tmp_path / name, optimizer=optimizer, schedule=2):
            for _ in range(4):
                for part in range(3):
                    inputs = torch.randn(2, 3, generator=torch.Generator().manual_seed(part))
                    (called(inputs).square().mean() / 3).backward()
                optimizer.step()
                optimizer.zero_grad()
        runs[name] = gradflow.open_run(tmp_path / name)
    assert set(runs["run"].gradients.batch_size) == {6}
    pd.testing.assert_frame_equal(runs["run"].gradients, runs["plain"].gradients, rtol=1e-6)


@pytest.mark.parametrize("stance", ["force_eager", "eager_on_recompile"])
def test_the_users_stance_is_put_back(tmp_path, stance):
    model = network()
    with torch.compiler.set_stance(stance):
        trace(model, tmp_path / "run", wrapped, backend="eager")
        assert eval_frame._stance.stance == stance


def test_the_stance_is_put_back_if_the_training_fails(tmp_path):
    model = network()
    with torch.compiler.set_stance("eager_on_recompile"):
        with pytest.raises(ZeroDivisionError), gradflow.Tracer(model, tmp_path / "run"):
            raise ZeroDivisionError
        assert eval_frame._stance.stance == "eager_on_recompile"


def test_the_stance_is_put_back_if_a_tracer_is_never_left(tmp_path):
    def start():
        tracer = gradflow.Tracer(network(), tmp_path / "run")
        tracer.__enter__()
        assert eval_frame._stance.stance == "force_eager"

    start()
    gc.collect()
    assert eval_frame._stance.stance == "default"


@pytest.mark.parametrize("first_to_end", [0, 1])
def test_two_tracers_share_the_stance(tmp_path, first_to_end):
    """As in a GAN: they begin and end their recorded steps in any order."""
    tracers = [gradflow.Tracer(network(), tmp_path / f"run{i}", schedule=100) for i in (0, 1)]
    for tracer in tracers:
        tracer.__enter__()
    models = [tracer._model for tracer in tracers]
    for place in (first_to_end, 1 - first_to_end):
        assert eval_frame._stance.stance == "force_eager"
        models[place](torch.ones(5, 3)).sum().backward()
        tracers[place].step()
    assert eval_frame._stance.stance == "default"
    for tracer in tracers:
        tracer.__exit__(None, None, None)


@pytest.mark.parametrize("within", ["step", "two steps"])
def test_a_stance_that_the_user_sets_within_a_step_is_theirs(tmp_path, within):
    model = network()
    with gradflow.Tracer(model, tmp_path / "run", schedule=2) as tracer:
        # Steps 0 and 2 are recorded.
        model(torch.ones(5, 3)).sum().backward()
        with torch.compiler.set_stance("fail_on_recompile"):
            for _ in range(1 if within == "step" else 3):
                tracer.step()
                assert eval_frame._stance.stance == (
                    "force_eager" if tracer.recording else "fail_on_recompile"
                )
        tracer.step()
    assert eval_frame._stance.stance == "default"


def test_what_runs_compiled_against_the_stance_is_said_and_breaks_no_graph(tmp_path):
    """The user asks for compiled code in a recorded step: hooks leave no trace in it."""
    model = network()
    called = torch.compile(model, backend="eager", fullgraph=True)
    with gradflow.Tracer(called, tmp_path / "run") as tracer:
        with torch.compiler.set_stance("default"):
            called(torch.ones(5, 3)).sum().backward()
        with pytest.warns(
            UserWarning, match=r"no layer was observed in step 0: .*the compiler's stance"
        ):
            tracer.step()
    assert not counters["graph_break"]


def test_a_compiled_optimizer_ends_its_steps(tmp_path):
    model = network()
    optimizer = tracer_optimizer(model)
    step = torch.compile(optimizer.step, backend="eager")
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, schedule=2) as tracer:
        for _ in range(5):
            model(torch.ones(5, 3)).square().mean().backward()
            step()
            optimizer.zero_grad()
        assert tracer.steps == 5
    run = gradflow.open_run(tmp_path / "run")
    assert sorted(run.parameters.step.unique()) == [0, 2, 4]
    weight = run.parameters.query("parameter == '0.weight'")
    expected = 0.1 * weight.gradient_norm
    assert list(weight.update_norm) == pytest.approx(list(expected), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("way", [wrapped, by_region, inside_the_step])
def test_optimizers_that_take_turns_on_a_compiled_model_each_end_a_step(tmp_path, way):
    model = network()
    head = torch.optim.SGD(model[3].parameters(), lr=0.1)
    body = torch.optim.SGD(model[:3].parameters(), lr=0.1)
    called = way(model, backend="eager")
    given = called if isinstance(called, nn.Module) else model
    with gradflow.Tracer(given, tmp_path / "run", optimizer=[head, body]) as tracer:
        for step in range(6):
            called(torch.ones(5, 3)).square().sum().backward()
            (head, body)[step % 2].step()
            model.zero_grad()
        tracer.end_epoch()
        assert tracer.steps == 6


@pytest.mark.parametrize("order", ["compiled in DDP", "DDP compiled"])
def test_ddp_and_the_compiler_may_wrap_each_other(tmp_path, order):
    expected, _ = trace(network(), tmp_path / "plain")
    distributed = torch.distributed
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        ddp = nn.parallel.DistributedDataParallel

        def way(model):
            if order == "DDP compiled":
                return torch.compile(ddp(model), backend="aot_eager")
            return ddp(torch.compile(model, backend="aot_eager"))

        run, _ = trace(network(), tmp_path / "run", way)
    finally:
        distributed.destroy_process_group()
    for table in TABLES:
        pd.testing.assert_frame_equal(getattr(run, table), getattr(expected, table), rtol=1e-5)


def test_names_leave_out_all_wrappers(tmp_path):
    """A compiled model with a compiled block, one of whose layers is checkpointed by a wrapper."""
    model = network()
    names = {name for name, _ in model.named_parameters()}
    model[1].linear = checkpoint_wrapper(model[1].linear, CheckpointImpl.NO_REENTRANT)
    model[1] = torch.compile(model[1], backend="eager")
    called = torch.compile(model, backend="eager")
    with gradflow.Tracer(called, tmp_path / "run") as tracer:
        called(torch.ones(5, 3)).sum().backward()
        tracer.step()
    run = gradflow.open_run(tmp_path / "run")
    assert set(run.parameters.parameter) == names
    plain, _ = trace(network(), tmp_path / "plain")
    assert list(run.layers.layer) == list(plain.layers.layer)


def test_a_hook_leaves_no_trace_in_compiled_code():
    called = []

    class Recording:
        record = object()

    model = network()
    model[0].register_forward_hook(Hook(Recording(), lambda *_: called.append(1)))
    torch.compile(model, backend="eager", fullgraph=True)(torch.ones(5, 3))
    assert (called, dict(counters["graph_break"])) == ([], {})
    model(torch.ones(5, 3))
    assert called == [1]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_model_compiled_by_inductor_is_recorded(tmp_path, mode):
    expected, _ = trace(network(), tmp_path / "plain")
    run, more = trace(network(), tmp_path / "run", wrapped, fullgraph=True, mode=mode)
    assert more == 0
    for table in TABLES:
        pd.testing.assert_frame_equal(
            getattr(run, table), getattr(expected, table), rtol=1e-4, atol=1e-5
        )
