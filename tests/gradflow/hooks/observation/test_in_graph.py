"""Statistics taken within the compiled graph are those of uncompiled steps, within rounding."""

import copy

import pandas as pd
import pytest
import torch
from torch import nn

import gradflow
from gradflow.errors import TracingError

# torch.compile looks at `grad` of tensors wherever it goes from one piece to the next.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")

STEPS = 4


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.convolution = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.norm(self.convolution(x)) + x)


class Network(nn.Module):
    """With a residual addition, operations in place, a dead layer, and a layer that runs twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.block = Block(4)
        self.shared = nn.Linear(4, 4)
        self.tokens = nn.LayerNorm(4)
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        x = self.block(self.first(x)).flatten(2).transpose(1, 2)
        x = self.tokens(self.shared(self.shared(x)))
        return self.last(x.mean(1))


def images(step, count=3):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(count, 3, 6, 6, generator=generator)


def train(model, folder, *, counts=(3,) * STEPS, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with gradflow.Tracer(model, folder, optimizer=optimizer, **options):
        for step, count in enumerate(counts):
            optimizer.zero_grad()
            model(images(step, count)).square().sum().backward()
            optimizer.step()
            model.eval()
            with torch.no_grad():
                model(images(step))  # an evaluation between two steps is not recorded
            model.train()
    return gradflow.open_run(folder)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Network()


@pytest.fixture(scope="module")
def eager(network, tmp_path_factory):
    model = copy.deepcopy(network)
    return model, train(model, tmp_path_factory.mktemp("eager") / "run")


def compiled_run(network, folder, **how):
    torch._dynamo.reset()
    model = copy.deepcopy(network)
    model.compile(fullgraph=True, **how)
    with torch.no_grad():
        model.eval()(images(0))  # compiled before the tracer comes: without its hooks
    model.train()
    with pytest.warns(UserWarning, match="run several times in a pass.*: shared"):
        run = train(model, folder, compiled="in-graph")
    return model, run


@pytest.fixture(scope="module")
def in_graph(network, tmp_path_factory):
    return compiled_run(network, tmp_path_factory.mktemp("graph") / "run", backend="aot_eager")


def assert_same(found, expected, rtol):
    keys = ["step", "layer" if "layer" in expected else "parameter"]
    found, expected = (one.sort_values(keys).reset_index(drop=True) for one in (found, expected))
    # Some means are zero but for rounding, as those of gradients before a batch norm.
    pd.testing.assert_frame_equal(found, expected, rtol=rtol, atol=1e-3 * rtol)


def without_shared(table):
    return table[~((table.step > 0) & table.layer.str.startswith("shared"))]


def assert_is_that_of_eager(in_graph, eager, rtol):
    (model, run), (twin, expected) = in_graph, eager
    for name in ("activations", "gradients"):
        wanted = without_shared(getattr(expected, name))
        assert set(wanted.step) == set(range(STEPS))
        assert_same(getattr(run, name), wanted, rtol)
    columns = ["step", "parameter", "weight_norm", "gradient_norm", "update_norm"]
    assert_same(run.parameters[columns], expected.parameters[columns], rtol)
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value)


def test_every_step_has_the_rows_of_an_uncompiled_training(in_graph, eager):
    assert_is_that_of_eager(in_graph, eager, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_inductor_gives_the_rows_of_an_uncompiled_training(network, eager, tmp_path, mode):
    assert_is_that_of_eager(compiled_run(network, tmp_path / "run", mode=mode), eager, 1e-3)


def test_of_junctions_the_first_step_alone_is_recorded(in_graph):
    assert set(in_graph[1].junctions.step) == {0}


def test_after_the_tracer_the_model_runs_compiled_without_its_hooks(in_graph):
    model, _ = in_graph
    assert not any(module._forward_hooks for module in model.modules())
    model.train()(images(0)).sum().backward()


@pytest.mark.slow
def test_batches_of_other_sizes_are_recorded_as_they_are(network, tmp_path):
    counts = (3, 3, 2, 3)
    torch._dynamo.reset()
    model, twin = copy.deepcopy(network), copy.deepcopy(network)
    model.compile(backend="aot_eager", fullgraph=True)
    with pytest.warns(UserWarning, match="several times"):
        run = train(model, tmp_path / "run", counts=counts, compiled="in-graph")
    expected = train(twin, tmp_path / "twin", counts=counts)
    for name in ("activations", "gradients"):
        assert_same(getattr(run, name), without_shared(getattr(expected, name)), 1e-6)


def steps_of(model, folder, passes_of_steps, inputs, match):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tracer = gradflow.Tracer(model, folder, optimizer=optimizer, compiled="in-graph")
    with pytest.warns(UserWarning, match=match), tracer:  # noqa: PT031 - some while training
        for passes in passes_of_steps:
            optimizer.zero_grad()
            for _ in range(passes):
                model(inputs).sum().backward()
            optimizer.step()
    return gradflow.open_run(folder)


def test_accumulated_passes_are_left_out_and_said_so(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    match = "in step 1 several passes ran"
    run = steps_of(model, tmp_path / "run", (2, 2, 1), torch.ones(2, 3), match)
    assert sorted(set(run.activations.step)) == sorted(set(run.gradients.step)) == [0, 2]
    assert sorted(set(run.parameters.step)) == [0, 1, 2]


class First(nn.Module):
    def forward(self, outputs):
        return outputs[0]


def test_a_layer_of_several_outputs_is_left_out_and_said_so(tmp_path):
    model = nn.Sequential(nn.LSTM(3, 4), First(), nn.Linear(4, 2))
    match = "in step 1 1 layers have no rows.*no single tensor: 0"
    run = steps_of(model, tmp_path / "run", (1, 1), torch.ones(5, 2, 3), match)
    assert set(run.activations[run.activations.step == 0].layer) == {"0", "2"}
    assert set(run.activations[run.activations.step == 1].layer) == {"2"}


def test_an_equal_model_without_hooks_shares_no_compiled_code(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    twin = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    before = torch._dynamo.config.skip_nnmodule_hook_guards
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, compiled="in-graph"):
        for one in (model, twin):
            one.compile(backend="aot_eager", fullgraph=True)
        for count in (2, 2, 2):
            twin(torch.ones(2, 3)).sum().backward()
            model(torch.ones(count, 3)).sum().backward()
            twin(torch.zeros(2, 3)).sum().backward()
            optimizer.step()
    rows = gradflow.open_run(tmp_path / "run").activations
    assert [list(layers) for _, layers in rows.groupby("step").layer] == [["0", "1"]] * 3
    assert (rows.norm > 0).all()
    assert torch._dynamo.config.skip_nnmodule_hook_guards == before


def test_a_step_under_way_belongs_to_the_epoch_it_ends_in(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with gradflow.Tracer(
        model, tmp_path / "run", optimizer=optimizer, compiled="in-graph"
    ) as tracer:
        for step in range(4):
            model(torch.ones(2, 3)).sum().backward()
            if step == 2:
                tracer.end_epoch()
            optimizer.step()
        tracer.end_epoch()
    steps = gradflow.open_run(tmp_path / "run").activations.groupby("step").epoch.unique()
    assert [list(epochs) for epochs in steps] == [[1], [1], [2], [2]]


def test_a_copy_of_the_model_writes_nothing(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, compiled="in-graph"):
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.ones(2, 3)).sum().backward()
            copy.deepcopy(model)(torch.ones(5, 3)).sum().backward()
            optimizer.step()
    run = gradflow.open_run(tmp_path / "run")
    assert set(run.activations.batch_size) == {2}
    assert set(run.activations.step) == {0, 1}


def test_histograms_are_refused(tmp_path):
    with pytest.raises(TracingError, match="counts no magnitudes"):
        gradflow.Tracer(nn.Linear(3, 2), tmp_path / "run", compiled="in-graph", histograms=True)


class Weighted(nn.Module):
    """Its softmax has as many channels as the sequence has positions."""

    def __init__(self):
        super().__init__()
        self.score, self.softmax, self.last = nn.Linear(4, 1), nn.Softmax(-1), nn.Linear(4, 2)

    def forward(self, x):
        weights = self.softmax(self.score(x).squeeze(-1))
        return self.last((weights.unsqueeze(-1) * x).sum(1))


def test_a_layer_whose_channels_change_in_number_has_no_rows_and_the_training_goes_on(tmp_path):
    model = Weighted()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    match = "another number of channels.*: softmax"
    tracer = gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, compiled="in-graph")
    with pytest.warns(UserWarning, match=match), tracer:  # noqa: PT031 - at the end
        for positions in (3, 3, 5, 3):
            optimizer.zero_grad()
            model(torch.randn(2, positions, 4)).square().sum().backward()
            optimizer.step()
    run = gradflow.open_run(tmp_path / "run")
    found = run.activations[run.activations.layer == "softmax"]
    assert dict(zip(found.step, found["mean"], strict=True)) == pytest.approx(
        {0: 1 / 3, 1: 1 / 3, 3: 1 / 3}
    )
    assert sorted(run.activations.step[run.activations.layer == "last"]) == [0, 1, 2, 3]


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

    def forward(self, x, chosen):
        y = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            y = y.index_put((chosen == number,), expert(x[chosen == number]))
        return y


def test_an_expert_that_gets_no_tokens_has_no_row_and_the_training_goes_on(tmp_path):
    model = Experts()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    match = "output is empty.*: experts.1"
    tracer = gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, compiled="in-graph")
    with pytest.warns(UserWarning, match=match), tracer:  # noqa: PT031 - at the end
        for chosen in ([0, 1, 0], [0, 1, 0], [0, 0, 0]):
            optimizer.zero_grad()
            model(torch.randn(3, 4), torch.tensor(chosen)).square().sum().backward()
            optimizer.step()
    run = gradflow.open_run(tmp_path / "run")
    second = run.activations[run.activations.layer == "experts.1"]
    assert sorted(second.step) == [0, 1]


def test_rows_are_in_order_of_execution_so_the_first_nonfinite_gradient_is_that_of_the_last_layer(
    tmp_path,
):
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), Reversed()), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with gradflow.Tracer(
        model, tmp_path / "run", optimizer=optimizer, compiled="in-graph"
    ) as tracer:
        for factor in (1.0, 1.0, float("inf")):
            optimizer.zero_grad()
            (model(torch.randn(3, 4)).sum() * factor).backward()
            optimizer.step()
        found = tracer.first_nonfinite()
    assert (found["step"], found["layer"], found["direction"]) == (2, "2", "backward")
    run = gradflow.open_run(tmp_path / "run")
    forward = ["0", "1.0", "1.1.before", "1.1.after", "1.1", "2"]
    for step in range(3):
        assert [*run.activations.layer[run.activations.step == step]] == forward
        order = [*run.gradients.layer[run.gradients.step == step]]
        assert order.index("2") == 0
        assert order.index("1.1.after") < order.index("1.1.before") < order.index("0")


class Reversed(nn.Module):
    """Its layers run in another order than they are listed in."""

    def __init__(self):
        super().__init__()
        self.after, self.before = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.after(self.before(x)) * 2


def test_a_model_without_parameters_of_its_own_is_recorded(tmp_path):
    weight = nn.Parameter(torch.tensor([[1.0, -2.0, 3.0]]))
    model = nn.Sequential(nn.ReLU())
    with gradflow.Tracer(model, tmp_path / "run", compiled="in-graph") as tracer:
        for _ in range(3):
            model(weight * 1).sum().backward()
            tracer.step()
    run = gradflow.open_run(tmp_path / "run")
    assert [*run.activations["mean"]] == pytest.approx([4 / 3] * 3)


def test_a_model_of_repeated_layers_alone_is_trained_to_the_end(tmp_path):
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, shared)
    run = steps_of(model, tmp_path / "run", (1, 1, 1), torch.ones(2, 3), "several times in a pass")
    assert set(run.activations.step) == {0}
    assert set(run.parameters.step) == {0, 1, 2}


def test_paused_passes_are_not_recorded_nor_counted(tmp_path):
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tracer = gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, compiled="in-graph")
    expected = []
    with tracer:
        model.compile(backend="aot_eager", fullgraph=True)
        for step in range(4):
            optimizer.zero_grad()
            expected.append(float(model(torch.full((2, 3), step + 1.0)).detach().norm()))
            model(torch.full((2, 3), step + 1.0)).sum().backward() if not step else None
            with tracer.paused():
                model(torch.ones(5, 3)).sum().backward()
            if step:
                optimizer.zero_grad()
            optimizer.step()
    run = gradflow.open_run(tmp_path / "run")
    found = run.activations[(run.activations.layer == "2") & (run.activations.step > 0)]
    assert [*found.norm] == pytest.approx(expected[1:])
    assert set(found.batch_size) == {2}
    assert set(run.gradients.step) == {0}


@pytest.mark.parametrize("options", [{"create_graph": True}, {"retain_graph": True}])
@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True")
def test_a_backward_pass_that_is_differentiated_itself_trains_and_has_its_rows(tmp_path, options):
    runs = []
    for compiled in ("uncompiled", "in-graph"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        folder = tmp_path / compiled
        with gradflow.Tracer(model, folder, optimizer=optimizer, compiled=compiled):
            for step in range(4):
                optimizer.zero_grad()
                generator = torch.Generator().manual_seed(step)
                model(torch.randn(5, 3, generator=generator)).square().sum().backward(**options)
                optimizer.step()
        runs.append(gradflow.open_run(folder))
    eager, in_graph = runs
    assert set(in_graph.gradients.step) == set(range(4))
    for name in ("activations", "gradients"):
        assert_same(getattr(in_graph, name), getattr(eager, name), 1e-6)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own
def test_under_a_transform_of_torch_func_a_pass_runs_and_has_no_rows(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = torch.ones(5, 3)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, compiled="in-graph"):
        for _ in range(3):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
            value, slope = torch.func.jvp(model, (x,), (x,))
            assert value.shape == slope.shape == (5, 1)
    assert set(gradflow.open_run(tmp_path / "run").gradients.step) == set(range(3))
