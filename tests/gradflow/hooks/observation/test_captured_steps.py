"""Statistics within a CUDA graph that the user captures are those of eager steps.

Without a GPU a stand-in is captured: it keeps the operations of torch with their tensors, and runs
them again without Python. The last tests capture a real graph.
"""

import copy
import gc
import weakref
from contextlib import contextmanager

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import gradflow
from gradflow.errors import TracingError
from gradflow.hooks.updates.parameters import ParameterRecorder

WARM_UP, STEPS = 2, 7


class Captured(TorchDispatchMode):
    """Keeps what is called; `before` is what was in memory that the capture has not made."""

    def __init__(self):
        super().__init__()
        self.calls, self.before, self.made = [], {}, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        args, kwargs = tree_map_only(torch.Tensor, torch.Tensor.detach, (args, kwargs or {}))
        read = {one.untyped_storage().data_ptr(): one for one in tensors((args, kwargs))}
        for place, one in read.items():
            if place not in self.made and place not in self.before:
                self.before[place] = one, one.untyped_storage().clone()
        out = func(*args, **kwargs)
        kept = [one.detach() for one in tensors(out)]
        new = [one.untyped_storage().data_ptr() not in read for one in kept]
        self.made |= {
            one.untyped_storage().data_ptr(): one
            for one, is_new in zip(kept, new, strict=True)
            if is_new
        }
        self.calls.append((func, args, kwargs, kept, new))
        return out


def tensors(tree):
    return [one for one in tree_leaves(tree) if isinstance(one, torch.Tensor)]


class Graph:
    """Stands in for a CUDA graph: what is captured is computed when it is replayed, and only then.

    New memory is filled with nan, so that a value which is read too early shows.
    """

    capturing = False

    @contextmanager
    def capture(self):
        mode = Captured()
        Graph.capturing = True
        try:
            with mode:
                yield
        finally:
            Graph.capturing = False
        for one, content in mode.before.values():
            one.untyped_storage().copy_(content)
        for one in mode.made.values():
            one.untyped_storage().fill_(255)
        self._calls = mode.calls

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, kept, new in self._calls:
            found = tensors(func(*args, **kwargs))
            for place, value, is_new in zip(kept, found, new, strict=True):
                if is_new:
                    place.copy_(value)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    """Tell the tracer when the stand-in captures; it must not measure parameters then."""
    for module in ("step_cycle", "instruments.terms.loss_terms"):
        name = f"gradflow.hooks.{module}.is_capturing"
        monkeypatch.setattr(name, lambda: Graph.capturing or is_capturing_on_cuda())
    # The loops of the CPU read parameters without an operation of torch, which would show.
    for name in ("measure_weights", "measure_gradients", "after_update"):
        found = getattr(ParameterRecorder, name)
        monkeypatch.setattr(ParameterRecorder, name, only_outside(found))


def only_outside(method):
    def measure(*args, **options):
        measures = options.get("record", True) or options.get("keep_gradients")
        assert not (Graph.capturing and measures)
        return method(*args, **options)

    return measure


def is_capturing_on_cuda():
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


class Network(nn.Module):
    """With a residual addition, a change in place, and a layer in a block."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.block = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.tokens = nn.LayerNorm(4)
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        x = self.first(x)
        x = (self.block(x) + x).flatten(2).transpose(1, 2)
        return self.last(self.tokens(x).mean(1))


def images(step, device="cpu"):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(3, 3, 6, 6, generator=generator, dtype=torch.float64)
    # The last one is infinite: what is not finite is counted in a replay, too.
    return (x * (torch.inf if step == STEPS - 1 else 1.0)).to(device)


class Training:
    """A model with its optimizers, whose step is run by parts, or captured."""

    def __init__(self, model, optimizers=1):
        self.model = model
        halves = [list(model.first.parameters()), [*model.block.parameters()]]
        halves[-1] += [*model.tokens.parameters(), *model.last.parameters()]
        groups = halves if optimizers == 2 else [list(model.parameters())]
        self.optimizers = [torch.optim.SGD(one, lr=0.01, momentum=0.9) for one in groups]
        self.given = self.optimizers if optimizers == 2 else self.optimizers[0]
        self.x = images(0, next(model.parameters()).device)

    def passes(self):
        for one in self.optimizers:
            one.zero_grad()
        self.loss = self.model(self.x).square().sum()
        self.loss.backward()

    def update(self):
        for one in self.optimizers:
            one.step()

    def load(self, step):
        self.x.copy_(images(step))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Network().double()


def eager_run(network, folder, device="cpu", optimizers=1, schedule=1):
    training = Training(copy.deepcopy(network).to(device), optimizers)
    with gradflow.Tracer(
        training.model, folder, optimizer=training.given, schedule=schedule
    ) as tracer:
        for step in range(STEPS):
            training.load(step)
            training.passes()
            tracer.log(loss=training.loss)
            training.update()
    return training.model, gradflow.open_run(folder)


def captured_run(
    network,
    folder,
    *,
    whole,
    graph=Graph,
    device="cpu",
    optimizers=1,
    schedule=1,
    given=True,
    **options,
):
    """Train with a graph of the passes, or of the whole step, from the third step on."""
    training = Training(copy.deepcopy(network).to(device), optimizers)
    graph = graph()
    with gradflow.Tracer(
        training.model,
        folder,
        optimizer=training.given if given else None,
        compiled="in-graph",
        schedule=schedule,
        **options,
    ) as tracer:
        for step in range(STEPS):
            if step == WARM_UP:
                with graph.capture():
                    training.passes()
                    if whole:
                        training.update()
            training.load(step)
            if step < WARM_UP:
                training.passes()
            else:
                graph.replay()
            tracer.log(loss=training.loss)
            if step < WARM_UP or not whole:
                training.update()
            if not given or (whole and step >= WARM_UP):
                tracer.step()
    return training.model, gradflow.open_run(folder)


COLUMNS = ["step", "parameter", "weight_norm", "gradient_norm", "update_norm"]


def assert_same(found, expected):
    keys = ["step", "layer" if "layer" in expected else "parameter"]
    found, expected = (one.sort_values(keys).reset_index(drop=True) for one in (found, expected))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-12, atol=1e-13)


def assert_is_that_of_eager(captured, eager, steps=range(STEPS), first_replay_lacks=()):
    (model, run), (twin, expected) = captured, eager
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, equal_nan=True)
    for name in ("activations", "gradients"):
        assert set(getattr(run, name).step) == set(steps)
        assert_same(getattr(run, name), getattr(expected, name))
    wanted = expected.parameters[COLUMNS].copy()
    for name in first_replay_lacks:
        wanted.loc[wanted.step == WARM_UP, name] = float("nan")
    assert_same(run.parameters[COLUMNS], wanted)
    assert list(run.steps.loss) == pytest.approx(list(expected.steps.loss), nan_ok=True)
    known = run.parameters[(run.parameters.step > WARM_UP + 1) & (run.parameters.step < STEPS - 1)]
    cosines = known.set_index(["step", "parameter"]).gradient_cosine.dropna()
    of_eager = expected.parameters.set_index(["step", "parameter"]).gradient_cosine
    pd.testing.assert_series_equal(cosines, of_eager.loc[cosines.index], rtol=1e-12)
    return len(cosines)


def test_replayed_passes_have_the_rows_of_eager_ones(network, tmp_path):
    captured = captured_run(network, tmp_path / "run", whole=False, strict=True)
    cosines = assert_is_that_of_eager(captured, eager_run(network, tmp_path / "eager"))
    assert cosines == 2 * len(list(network.parameters()))
    assert "not_recorded" not in captured[1].description


def test_replayed_steps_have_the_rows_of_eager_ones(network, tmp_path):
    captured = captured_run(network, tmp_path / "run", whole=True, strict=True)
    # Nothing of the tracer runs between the capture and the end of the first replay.
    lacks = ("weight_norm", "update_norm")
    eager = eager_run(network, tmp_path / "eager")
    cosines = assert_is_that_of_eager(captured, eager, first_replay_lacks=lacks)
    assert cosines == 2 * len(list(network.parameters()))
    rates = captured[1].parameters.learning_rate
    assert set(rates) == {0.01}


def test_without_an_optimizer_the_first_replay_has_all_as_well(network, tmp_path):
    captured = captured_run(network, tmp_path / "run", whole=True, given=False, strict=True)
    assert_is_that_of_eager(captured, eager_run(network, tmp_path / "eager"))


@pytest.mark.parametrize("whole", [False, True])
def test_of_several_optimizers_too(network, tmp_path, whole):
    captured = captured_run(network, tmp_path / "run", whole=whole, optimizers=2, strict=True)
    eager = eager_run(network, tmp_path / "eager", optimizers=2)
    lacks = ("weight_norm", "update_norm") if whole else ()
    assert_is_that_of_eager(captured, eager, first_replay_lacks=lacks)
    columns = ["optimizer", "group", "learning_rate"]
    pd.testing.assert_frame_equal(*(run.parameters[columns] for _, run in (captured, eager)))


@pytest.mark.parametrize("whole", [False, True])
def test_steps_that_the_schedule_leaves_out_have_no_rows(network, tmp_path, whole):
    captured = captured_run(network, tmp_path / "run", whole=whole, schedule=3, strict=True)
    eager = eager_run(network, tmp_path / "eager", schedule=3)
    # Step 2, where the capture is, is not recorded; so nothing is missing.
    assert_is_that_of_eager(captured, eager, steps=(0, 3, 6))


def small():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    return model, torch.ones(5, 3, dtype=torch.float64)


def passes_of(model, x):
    def passes():
        model.zero_grad()
        model(x).square().sum().backward()

    return passes


def test_one_optimizer_inside_and_one_outside_of_the_graph_end_a_step_together(tmp_path):
    runs = []
    for is_captured in (True, False):
        model, x = small()
        passes, graph = passes_of(model, x), Graph()
        inside, outside = (torch.optim.SGD(model[at].parameters(), lr=0.01) for at in (0, 2))
        compiled = "in-graph" if is_captured else "uncompiled"
        folder = tmp_path / compiled
        with gradflow.Tracer(
            model, folder, optimizer=[inside, outside], compiled=compiled, strict=True
        ) as tracer:
            for step in range(5):
                if is_captured and step == 2:
                    with graph.capture():
                        passes()
                        inside.step()
                if is_captured and step >= 2:
                    graph.replay()
                else:
                    passes()
                    inside.step()
                outside.step()
            with pytest.raises(TracingError, match="do not call step"):
                tracer.step()
        runs.append((model, gradflow.open_run(folder)))
    found, expected = (run.parameters[COLUMNS] for _, run in runs)
    lacking = expected.step == 2
    assert found[lacking][["weight_norm", "update_norm"]].isna().all(axis=None)
    assert_same(found[~lacking], expected[~lacking])


def test_a_step_without_the_graph_is_recorded_as_any(tmp_path):
    # As for a last batch of another size.
    model, x = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    passes, graph = passes_of(model, x), Graph()
    tracer = gradflow.Tracer(
        model, tmp_path / "run", optimizer=optimizer, compiled="in-graph", strict=True
    )
    with tracer:
        for step in range(6):
            if step == 2:
                with graph.capture():
                    passes()
                    optimizer.step()
            if step in (2, 3, 5):
                graph.replay()
                tracer.step()
                continue
            count = 2 if step == 4 else 5
            before = model[0].weight.detach().clone()
            passes_of(model, x[:count])()
            optimizer.step()
            moved = float((model[0].weight.detach() - before).norm())
    run = gradflow.open_run(tmp_path / "run")
    sizes = run.activations[run.activations.layer == "0"].batch_size
    assert list(sizes) == [5, 5, 5, 5, 2, 5]
    row = run.parameters[(run.parameters.step == 4) & (run.parameters.parameter == "0.weight")]
    assert float(row.update_norm.iloc[0]) == pytest.approx(moved, rel=1e-12)


def test_the_rate_of_a_replayed_update_is_the_one_that_was_captured(tmp_path):
    model, x = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    passes, graph = passes_of(model, x), Graph()
    with gradflow.Tracer(
        model, tmp_path / "run", optimizer=optimizer, compiled="in-graph"
    ) as tracer:
        passes()
        optimizer.step()
        with graph.capture():
            passes()
            optimizer.step()
        optimizer.param_groups[0]["lr"] = 0.125
        for _ in range(2):
            graph.replay()
            tracer.step()
    rows = gradflow.open_run(tmp_path / "run").parameters
    rows = rows[(rows.parameter == "2.bias") & (rows.step == 2)]
    assert list(rows.learning_rate) == [0.5]
    assert float(rows.update_norm.iloc[0]) == pytest.approx(0.5 * rows.gradient_norm.iloc[0])


def test_several_replays_in_a_step_are_left_out_and_said_so(tmp_path):
    model, x = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    passes, graph = passes_of(model, x), Graph()
    match = "in step 1 several passes ran.*a CUDA graph is replayed several times"
    tracer = gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, compiled="in-graph")
    with pytest.warns(UserWarning, match=match), tracer:  # noqa: PT031 - at the end
        passes()
        optimizer.step()
        with graph.capture():
            passes()
        for replays in (2, 1):
            for _ in range(replays):
                graph.replay()
            optimizer.step()
    run = gradflow.open_run(tmp_path / "run")
    assert set(run.activations.step) == set(run.gradients.step) == {0, 2}
    assert set(run.parameters.step) == {0, 1, 2}


def whole_step(tracer, model, x, optimizer, *, during=lambda: None):
    """One eager step, then the capture of one."""
    passes, graph = passes_of(model, x), Graph()
    passes()
    optimizer.step()
    with graph.capture():
        passes()
        optimizer.step()
        during()
    return graph


def test_what_is_called_while_it_is_captured_is_left_out(tmp_path):
    model, x = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tracer = gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, compiled="in-graph")

    def during():
        tracer.log(loss=x.sum())
        tracer.step()

    match = "a loss was given in step 1 while a CUDA graph was captured.*after each replay"
    with pytest.warns(UserWarning, match=match), tracer:  # noqa: PT031
        graph = whole_step(tracer, model, x, optimizer, during=during)
        assert tracer.steps == 1
        graph.replay()
        tracer.step()
    run = gradflow.open_run(tmp_path / "run")
    assert list(run.steps.step) == [0, 1]
    assert run.steps.loss.isna().all()


@pytest.mark.parametrize("ends_epoch", [False, True])
def test_replays_that_nobody_tells_of_are_said_so(tmp_path, ends_epoch):
    model, x = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tracer = gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, compiled="in-graph")
    match = r"captured in step 1.*Call tracer.step\(\) after each replay"
    with pytest.warns(UserWarning, match=match), tracer:  # noqa: PT031
        whole_step(tracer, model, x, optimizer).replay()
        if ends_epoch:
            tracer.end_epoch()
    assert "tracer.step()" in gradflow.open_run(tmp_path / "run").description["not_recorded"][0]


def test_strict_refuses_replays_that_nobody_tells_of(tmp_path):
    model, x = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tracer = gradflow.Tracer(
        model, tmp_path / "run", optimizer=optimizer, compiled="in-graph", strict=True
    )
    with pytest.raises(TracingError, match="after each replay"), tracer:
        whole_step(tracer, model, x, optimizer).replay()


def test_a_capture_that_is_not_replayed_is_no_step(tmp_path):
    model, x = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with gradflow.Tracer(
        model, tmp_path / "run", optimizer=optimizer, compiled="in-graph", strict=True
    ) as tracer:
        whole_step(tracer, model, x, optimizer)
        tracer.end_epoch()
        assert tracer.steps == 1


def test_eager_steps_that_are_not_recorded_are_no_replays(tmp_path):
    model, x = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    options = {"schedule": 5, "compiled": "in-graph", "strict": True}
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, **options) as tracer:
        for _ in range(2):
            passes_of(model, x)()
            optimizer.step()
        graph = whole_step(tracer, model, x, optimizer)
        tracer.end_epoch()
        for _ in range(9):
            graph.replay()
            tracer.step()
    run = gradflow.open_run(tmp_path / "run")
    assert set(run.activations.step) == set(run.parameters.step) == {0, 5, 10}


def test_a_whole_step_that_is_captured_too_early_is_said_so_and_its_replays_are_steps(tmp_path):
    model, x = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    options = {"schedule": lambda step: step >= 3, "compiled": "in-graph"}
    tracer = gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, **options)
    match = "step 1 is captured.*train one step that is recorded before the capture"
    weights = []
    with pytest.warns(UserWarning, match=match), tracer:  # noqa: PT031
        graph = whole_step(tracer, model, x, optimizer)
        for _ in range(5):
            weights.append(next(model.parameters()).detach().clone())
            graph.replay()
            tracer.step()
    run = gradflow.open_run(tmp_path / "run")
    assert set(run.parameters.step) == {3, 4, 5}
    assert run.activations.empty
    name = next(name for name, _ in model.named_parameters())
    found = run.parameters.set_index(["parameter", "step"]).update_norm[name]
    assert found[4] == pytest.approx(float((weights[4] - weights[3]).norm()), rel=1e-6)


def test_a_scaler_inside_of_the_graph_is_said_so(tmp_path):
    model, x = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    tracer = gradflow.Tracer(
        model, tmp_path / "run", optimizer=optimizer, scaler=scaler, compiled="in-graph"
    )
    match = r"the scale of the loss at its replays is not known.*outside of the graph"
    with pytest.warns(UserWarning, match=match), tracer:
        whole_step(tracer, model, x, optimizer)


def test_a_capture_before_the_first_recorded_step_has_no_statistics_and_is_said_so(tmp_path):
    model, x = small()
    passes, graph = passes_of(model, x), Graph()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    match = "step 0 is captured.*train one step that is recorded before the capture"
    tracer = gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, compiled="in-graph")
    with pytest.warns(UserWarning, match=match), tracer:  # noqa: PT031
        with graph.capture():
            passes()
        graph.replay()
        optimizer.step()


def test_without_statistics_in_the_graph_the_warning_names_them(tmp_path):
    model, x = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    match = 'step 1 is captured.*give the tracer compiled="in-graph"'
    tracer = gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer)
    with pytest.warns(UserWarning, match=match), tracer:
        whole_step(tracer, model, x, optimizer)


def test_of_an_update_that_is_captured_alone_nothing_is_measured(tmp_path):
    model, x = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tracer = gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer)
    with pytest.warns(UserWarning, match="step 1 is captured"), tracer:  # noqa: PT031
        passes_of(model, x)()
        optimizer.step()
        passes_of(model, x)()
        with Graph().capture():
            optimizer.step()
    assert set(gradflow.open_run(tmp_path / "run").steps.step) == {0}


def take_turns(folder, *, turns=(0, 1) * 3, graph=None, tells=True, **options):
    """Train with two optimizers; one steps after each pass, in the order of `turns`.

    From the fourth pass on, `graph` is replayed.
    """
    model, x = small()
    pair = [torch.optim.SGD(model[at].parameters(), lr=0.01) for at in (0, 2)]
    passes = passes_of(model, x)
    with gradflow.Tracer(model, folder, optimizer=pair, **options) as tracer:
        for step, turn in enumerate(turns):
            if graph is not None and step >= 3 and tells:
                tracer.begin_pass()
            if graph is not None and step == 3:
                ended = tracer.steps
                with graph.capture():
                    passes()  # the forward pass would end the step of the second optimizer
                assert tracer.steps == ended
            if graph is not None and step >= 3:
                graph.replay()
            else:
                passes()
            pair[turn].step()
    return gradflow.open_run(folder)


def test_optimizers_that_take_turns_have_their_passes_if_these_are_told(tmp_path):
    expected = take_turns(tmp_path / "eager")
    run = take_turns(tmp_path / "run", graph=Graph(), compiled="in-graph", strict=True)
    for name in ("activations", "gradients"):
        assert set(getattr(run, name).step) == set(range(6))
        assert_same(getattr(run, name), getattr(expected, name))
    assert_same(run.parameters[COLUMNS], expected.parameters[COLUMNS])


def test_passes_of_optimizers_that_take_turns_are_left_out_if_they_cannot_be_told(tmp_path):
    options = {"turns": (0, 1, 0, 0, 0, 0), "tells": False, "schedule": lambda step: step < 5}
    with pytest.warns(UserWarning, match=r"step 2 ended when.*tracer.begin_pass\(\)"):
        run = take_turns(tmp_path / "run", graph=Graph(), compiled="in-graph", **options)
    assert set(run.activations.step) == set(run.gradients.step) == {0, 1}
    assert set(run.parameters.step) == {0, 1, 2, 3, 4}


def test_a_pass_that_is_told_while_it_is_captured_ends_no_step(tmp_path):
    model, x = small()
    pair = [torch.optim.SGD(model[at].parameters(), lr=0.01) for at in (0, 2)]
    passes = passes_of(model, x)
    with gradflow.Tracer(
        model, tmp_path / "run", optimizer=pair, compiled="in-graph", strict=True
    ) as tracer:
        for stepping in (pair, pair[:1]):
            passes()
            for one in stepping:
                one.step()
        with Graph().capture():
            tracer.begin_pass()
        assert tracer.steps == 1


def test_a_graph_that_is_replayed_after_the_tracer_still_has_its_buffers(tmp_path):
    model, x = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, compiled="in-graph"):
        passes_of(model, x)()
        optimizer.step()
        (hook,) = model[0]._forward_hooks.values()
        buffer = weakref.ref(hook._of_output.sums)
        del hook
    assert not model[0]._forward_hooks
    gc.collect()
    assert buffer() is not None
    del model, optimizer
    gc.collect()
    assert buffer() is None


def accumulator(parameter):
    """The node that fills `parameter.grad`; torch makes another if nobody keeps it."""
    return parameter.view_as(parameter).grad_fn.next_functions[0][0]


@pytest.mark.parametrize("compiled", ["in-graph", "uncompiled"])
@pytest.mark.filterwarnings("ignore:gradflow:UserWarning")
def test_nodes_of_earlier_steps_do_not_run_in_the_captured_one(tmp_path, compiled):
    # CUDA refuses to capture a node that was made on the default stream.
    model, x = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, compiled=compiled):
        loss = model(x).square().sum()
        for parameter in model.parameters():
            accumulator(parameter).metadata["step"] = 0
        loss.backward()
        optimizer.step()
        del loss
        with Graph().capture():
            model(x)
            gc.collect()
            assert all("step" not in accumulator(one).metadata for one in model.parameters())


class CudaGraph:
    """A graph of CUDA, as `Graph`."""

    def __init__(self):
        self._graph = torch.cuda.CUDAGraph()

    @contextmanager
    def capture(self):
        torch.cuda.synchronize()
        with torch.cuda.graph(self._graph):
            yield

    def replay(self):
        self._graph.replay()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("whole", [False, True])
def test_a_graph_of_cuda_has_the_rows_of_eager_steps(network, tmp_path, whole):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    options = {"device": "cuda", "graph": CudaGraph, "strict": True}
    with torch.cuda.stream(side):
        captured = captured_run(network, tmp_path / "run", whole=whole, **options)
        eager = eager_run(network, tmp_path / "eager", device="cuda")
    lacks = ("weight_norm", "update_norm") if whole else ()
    assert_is_that_of_eager(captured, eager, first_replay_lacks=lacks)
