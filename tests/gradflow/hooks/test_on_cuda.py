"""On a GPU the tracer records the gradients of autograd, and does not change the training."""

import copy

import pytest
import torch
from torch.nn import functional as F

import gradflow
from gradflow.hooks.reduction.fused import moments
from gradflow.models import build

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.fixture
def deterministic():
    """Only kernels that give the same bits each time; convolutions would else add in any order."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def images(steps, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(steps, 6, 3, 40, 40, generator=generator)
    y = torch.randint(0, 5, (steps, 6), generator=generator)
    return list(zip(x.to("cuda", dtype), y.cuda(), strict=True))


@pytest.mark.parametrize("name", ["plain34", "resnet34"])
def test_norms_are_those_of_autograd_by_hand(tmp_path, keep_outputs, name):
    model = build(name, classes=5, seed=3).cuda().double()
    twin = copy.deepcopy(model)
    ((x, y),) = images(1, torch.float64)
    optimizer = torch.optim.Adam(model.parameters())
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer):
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    outputs = keep_outputs(twin)
    F.cross_entropy(twin(x), y).backward()
    run = gradflow.open_run(tmp_path / "run")
    gradients, activations = (t.set_index("layer") for t in (run.gradients, run.activations))
    for layer, output in outputs.items():
        assert gradients.norm[layer] == pytest.approx(float(output.grad.norm()), rel=1e-6)
        assert activations.norm[layer] == pytest.approx(float(output.detach().norm()), rel=1e-6)
        assert activations["mean"][layer] == pytest.approx(
            float(output.detach().mean()), rel=1e-6, abs=1e-9
        )
    parameters = run.parameters.set_index("parameter")
    for parameter, value in twin.named_parameters():
        expected = float(value.grad.norm())
        assert parameters.gradient_norm[parameter] == pytest.approx(expected, rel=1e-6, abs=1e-12)
    junctions = run.junctions
    assert len(junctions) == (16 if name == "resnet34" else 0)
    skip, branch = junctions.skip_gradient_norm, junctions.branch_gradient_norm
    added = skip**2 + branch**2 + 2 * skip * branch * junctions.skip_branch_cosine
    assert list(added**0.5) == pytest.approx(list(junctions.gradient_norm), rel=1e-10)


@pytest.mark.parametrize("histograms", [False, True])
def test_every_step_has_the_norms_of_autograd_once_tensors_wait(
    tmp_path, keep_outputs, deterministic, histograms
):
    model = build("resnet20", classes=5, seed=2).cuda()
    twin = copy.deepcopy(model)
    outputs = keep_outputs(twin)
    expected = []
    traced, plain = (torch.optim.SGD(m.parameters(), lr=0.01) for m in (model, twin))
    folder = tmp_path / "run"
    with gradflow.Tracer(model, folder, optimizer=traced, schedule=1, histograms=histograms):
        for x, y in images(5):
            for network, optimizer in ((model, traced), (twin, plain)):
                optimizer.zero_grad()
                F.cross_entropy(network(x), y).backward()
                optimizer.step()
            expected.append(
                {
                    layer: (float(one.detach().double().norm()), float(one.grad.double().norm()))
                    for layer, one in outputs.items()
                }
            )
    run = gradflow.open_run(folder)
    assert "not_recorded" not in run.description
    for table, place in ((run.activations, 0), (run.gradients, 1)):
        norms = table.set_index(["step", "layer"]).norm
        for step, layers in enumerate(expected):
            for layer, values in layers.items():
                assert norms[step, layer] == pytest.approx(values[place], rel=1e-6), (step, layer)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.filterwarnings("ignore:gradflow. from the second recorded step on")
def test_statistics_in_a_compiled_graph_are_those_of_uncompiled_steps(tmp_path, mode):
    found = []
    for compiled in ("uncompiled", "in-graph"):
        model = build("resnet20", classes=5, seed=2).cuda().double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        if compiled == "in-graph":
            torch._dynamo.reset()
            model.compile(mode=mode)
        folder = tmp_path / compiled
        with gradflow.Tracer(
            model, folder, optimizer=optimizer, schedule=1, compiled=compiled
        ) as tracer:
            # The compiler makes a CUDA graph of what has run a few times.
            for x, y in images(6, torch.float64):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                tracer.log(loss=loss)
                loss.backward()
                optimizer.step()
        found.append(gradflow.open_run(folder))
    eager, in_graph = found
    for name in ("activations", "gradients"):
        mine, theirs = (
            getattr(run, name).set_index(["step", "layer"]).norm for run in (in_graph, eager)
        )
        assert set(mine.index.get_level_values("step")) == set(range(6))
        for row, norm in mine.items():
            assert norm == pytest.approx(theirs[row], rel=1e-6), (name, row)
    losses = [list(run.steps.loss) for run in found]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


def test_mixed_precision_records_the_gradients_of_the_unscaled_loss(tmp_path, keep_outputs):
    model = build("resnet20", classes=5, seed=1).cuda()
    twin = copy.deepcopy(model)
    ((x, y),) = images(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**14)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, scaler=scaler):
        with torch.autocast("cuda", dtype=torch.float16):
            loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    outputs = keep_outputs(twin)
    with torch.autocast("cuda", dtype=torch.float16):
        loss = F.cross_entropy(twin(x), y)
    (loss * 2.0**14).backward()
    run = gradflow.open_run(tmp_path / "run")
    gradients = run.gradients.set_index("layer")
    for layer, output in outputs.items():
        assert output.dtype == torch.float16
        expected = float(output.grad.double().norm()) / 2**14
        # float16 gradients come out of kernels that may add in another order the second time.
        assert gradients.norm[layer] == pytest.approx(expected, rel=1e-2)
    assert list(run.steps.scale) == [2.0**14]


def test_training_is_bit_identical_with_and_without_the_tracer(tmp_path, deterministic):
    weights = []
    for traced in (True, False):
        model = build("resnet20", classes=5, seed=1).cuda()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

        def train(model=model, optimizer=optimizer):
            for x, y in images(4):
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()

        if traced:
            with gradflow.Tracer(
                model, tmp_path / "run", optimizer=optimizer, schedule=1, histograms=2
            ):
                train()
            assert set(gradflow.open_run(tmp_path / "run").gradients.step) == set(range(4))
        else:
            train()
        weights.append(model.state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_histograms_are_those_of_main_memory(dtype):
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)).pow(9).to(dtype)
    x[0, :5] = torch.tensor([0.0, -0.0, float("inf"), float("nan"), 1e-40])
    on_gpu = moments(x.cuda(), 1, histogram=True).magnitudes
    assert torch.equal(on_gpu.cpu(), moments(x, 1, histogram=True).magnitudes)
