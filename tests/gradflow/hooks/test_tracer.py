"""The rows of the tracer against autograd and closed forms; the training is not changed."""

import copy
import math

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import gradflow
from gradflow.errors import RunError, TracingError
from gradflow.hooks.reduction import cpu
from gradflow.models import build


def train(model, folder=None, *, steps=4, **options):
    """Train for a few seeded steps, traced if a folder is given."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-3)
    dtype = next(model.parameters()).dtype

    def loop(tracer):
        for step in range(steps):
            generator = torch.Generator().manual_seed(step)
            x = torch.randn(4, 3, 40, 40, generator=generator).to(dtype)
            y = torch.randint(0, 5, (4,), generator=generator)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        if tracer is not None:
            tracer.end_epoch(train_loss=1.5)

    if folder is None:
        loop(None)
        return optimizer
    with gradflow.Tracer(model, folder, optimizer=optimizer, **options) as tracer:
        loop(tracer)
    return optimizer


@pytest.mark.parametrize("name", [pytest.param("plain34", marks=pytest.mark.slow), "resnet34"])
def test_norms_are_those_of_autograd_by_hand(tmp_path, keep_outputs, name):
    model = build(name, classes=5, seed=3).double()
    twin = copy.deepcopy(model)
    train(model, tmp_path / "run", steps=1)
    run = gradflow.open_run(tmp_path / "run")

    # By hand: every convolution's output kept with its gradient, in a model of its own.
    outputs = keep_outputs(twin)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, 40, 40, generator=generator).double()
    y = torch.randint(0, 5, (4,), generator=generator)
    F.cross_entropy(twin(x), y).backward()

    gradients = run.gradients.set_index("layer")
    activations = run.activations.set_index("layer")
    parameters = run.parameters.set_index("parameter")
    assert len(outputs) == (34 if name == "plain34" else 37)
    for layer, output in outputs.items():
        assert gradients.norm[layer] == pytest.approx(float(output.grad.norm()), rel=1e-6)
        assert activations.norm[layer] == pytest.approx(float(output.detach().norm()), rel=1e-6)
    for parameter, value in twin.named_parameters():
        expected = float(value.grad.norm())
        assert parameters.gradient_norm[parameter] == pytest.approx(expected, rel=1e-6, abs=1e-12)
    # The norm of the whole gradient is the root of the sum of the squares.
    whole = torch.cat([p.grad.flatten() for p in twin.parameters()]).norm()
    assert math.sqrt((parameters.gradient_norm**2).sum()) == pytest.approx(float(whole), rel=1e-9)


def test_skip_plus_branch_is_the_gradient_at_the_blocks_input(tmp_path):
    train(build("resnet34", classes=5, seed=3).double(), tmp_path / "run", steps=1)
    junctions = gradflow.open_run(tmp_path / "run").junctions
    assert len(junctions) == 16
    assert list(junctions.skip_type).count("projection") == 3
    skip, branch = junctions.skip_gradient_norm, junctions.branch_gradient_norm
    # |s + b|^2 from the parts, against the norm measured at the input itself.
    added = skip**2 + branch**2 + 2 * skip * branch * junctions.skip_branch_cosine
    assert list(added**0.5) == pytest.approx(list(junctions.gradient_norm), rel=1e-10)


@pytest.mark.parametrize("name", ["plain20", "resnet20", "torchvision"])
def test_training_is_bit_identical_with_and_without_the_tracer(tmp_path, name):
    def make():
        torch.manual_seed(0)
        if name == "torchvision":
            return torchvision.models.resnet18(num_classes=5)
        return build(name, classes=5, seed=1)

    traced, untraced = make(), make()
    state = torch.random.get_rng_state()
    with_tracer = train(traced, tmp_path / "run", histograms=2)
    assert torch.equal(state, torch.random.get_rng_state())
    without = train(untraced)
    for (key, value), expected in zip(
        traced.state_dict().items(), untraced.state_dict().values(), strict=True
    ):
        assert torch.equal(value, expected), key
    for mine, theirs in zip(
        with_tracer.state_dict()["state"].values(),
        without.state_dict()["state"].values(),
        strict=True,
    ):
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_in_place_operations_stay_in_place_and_hooks_come_off(tmp_path):
    model = torchvision.models.resnet18(num_classes=5)
    others = []
    model.conv1.register_forward_hook(lambda *_: others.append(1))
    train(model, tmp_path / "run", steps=1)
    assert all(m.inplace for m in model.modules() if isinstance(m, nn.ReLU))
    for module in model.modules():
        assert len(module._forward_hooks) == (1 if module is model.conv1 else 0)
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
    assert others == [1]


def test_an_exception_in_training_takes_the_hooks_off_and_keeps_the_rows(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())

    def break_off():
        with gradflow.Tracer(model, tmp_path / "run") as tracer:
            model(torch.randn(2, 3)).sum().backward()
            tracer.step()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    assert not model[0]._forward_hooks
    run = gradflow.open_run(tmp_path / "run")
    assert run.description["status"] == "failed"
    assert list(run.gradients.layer) == ["1", "0"]


def test_layers_come_in_order_of_execution_with_second_calls_told_apart(tmp_path):
    train(torchvision.models.resnet18(num_classes=5), tmp_path / "run", steps=1)
    run = gradflow.open_run(tmp_path / "run")
    names = list(run.layers.layer)
    assert names[:3] == ["conv1", "bn1", "relu"]
    assert names.index("layer1.0.relu") < names.index("layer1.0.conv2")
    assert names.index("layer1.0.conv2") < names.index("layer1.0.relu#2")
    assert run.layers.depth.max() == 18
    assert set(run.gradients.layer) == set(names)


def test_relu_in_place_does_not_spoil_the_statistics_of_the_layer_before(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 2)).double()
    x = torch.randn(16, 4, dtype=torch.float64)
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(x).sum().backward()
        tracer.step()
    run = gradflow.open_run(tmp_path / "run")
    activations, gradients = (t.set_index("layer") for t in (run.activations, run.gradients))
    before = (x @ model[0].weight.T + model[0].bias).detach()
    after = model[2].weight.sum(0).expand(16, 8).detach()
    assert activations.norm["0"] == pytest.approx(float(before.norm()), rel=1e-12)
    assert activations.zero_fraction["1"] == pytest.approx(float((before <= 0).double().mean()))
    assert gradients.norm["1"] == pytest.approx(float(after.norm()), rel=1e-12)
    assert gradients.norm["0"] == pytest.approx(float((after * (before > 0)).norm()), rel=1e-12)


def test_only_scheduled_steps_are_recorded_and_numbered_over_the_run(tmp_path):
    train(build("plain20", classes=5, seed=1), tmp_path / "run", steps=5, schedule=2)
    run = gradflow.open_run(tmp_path / "run")
    assert sorted(set(run.gradients.step)) == [0, 2, 4]
    assert sorted(set(run.parameters.step)) == [0, 2, 4]
    assert list(run.epochs.columns) == ["epoch", "step", "train_loss"]
    assert run.epochs.iloc[0].to_dict() == {"epoch": 1, "step": 4, "train_loss": 1.5}
    # The step before a recorded one is followed for the cosine alone; the first has no predecessor.
    cosines = run.parameters[run.parameters.parameter == "conv1.weight"].gradient_cosine
    assert list(cosines.isna()) == [True, False, False]


def test_evaluation_and_no_grad_passes_are_not_recorded(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(torch.randn(2, 3)).sum().backward()
        with torch.no_grad():
            model(torch.randn(7, 3))
        model.eval()
        model(torch.randn(7, 3)).sum().backward()
        model.train()
        tracer.step()
    run = gradflow.open_run(tmp_path / "run")
    assert list(run.activations.batch_size) == [2, 2]
    assert list(run.gradients.batch_size) == [2, 2]


def test_a_layer_without_gradient_has_no_row_rather_than_a_zero(tmp_path):
    model = nn.ModuleDict({"used": nn.Linear(3, 3), "lonely": nn.Linear(3, 3)})
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model["lonely"](torch.randn(2, 3))
        model["used"](torch.randn(2, 3)).sum().backward()
        tracer.step()
    run = gradflow.open_run(tmp_path / "run")
    assert set(run.activations.layer) == {"used", "lonely"}
    assert set(run.gradients.layer) == {"used"}
    assert run.parameters.set_index("parameter").gradient_norm.isna()["lonely.weight"]


def test_accumulated_micro_batches_count_as_one_batch(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    x = torch.randn(6, 3, dtype=torch.float64)
    for folder, parts in (("whole", [x]), ("parts", [x[:2], x[2:]])):
        model.zero_grad()
        with gradflow.Tracer(model, tmp_path / folder) as tracer:
            for part in parts:
                model(part).square().sum().backward()
            tracer.step()
    whole, parts = (gradflow.open_run(tmp_path / name) for name in ("whole", "parts"))
    for table in ("activations", "gradients"):
        mine, theirs = (getattr(run, table).set_index("layer") for run in (parts, whole))
        assert list(mine.batch_size) == [6, 6, 6]
        for column in mine.columns.drop(["epoch", "step", "batch_size"]):
            assert mine[column].to_dict() == pytest.approx(theirs[column].to_dict(), rel=1e-10)


def test_update_is_what_the_optimizer_did(tmp_path):
    model = nn.Linear(3, 2).double()
    wrapped = nn.Sequential(model)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    before = model.weight.detach().clone()
    with gradflow.Tracer(wrapped, tmp_path / "run", optimizer=optimizer):
        wrapped(torch.randn(4, 3, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
    row = gradflow.open_run(tmp_path / "run").parameters.set_index("parameter").loc["0.weight"]
    update = float((model.weight.detach() - before).norm())
    assert row.update_norm == pytest.approx(update, rel=1e-12)
    assert row.update_norm == pytest.approx(0.1 * row.gradient_norm, rel=1e-12)
    assert row.update_to_weight == pytest.approx(update / float(before.norm()), rel=1e-12)


def test_nothing_is_read_back_from_the_device_inside_a_step(tmp_path):
    # The meta device has no values to read: whatever asks for one raises.
    model = build("resnet20", classes=5, seed=0).to("meta")
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(torch.empty(4, 3, 32, 32, device="meta")).sum().backward()
        tracer.step()
        with pytest.raises((NotImplementedError, RuntimeError)):
            tracer.end_epoch()
        tracer.store.drop_pending()


def test_a_folder_that_holds_a_run_is_refused_and_left_as_it_is(tmp_path):
    train(build("plain20", classes=5, seed=1), tmp_path / "run", steps=1)
    before = (tmp_path / "run" / "run.json").read_text()
    model = nn.Sequential(nn.Linear(2, 2))
    with (
        pytest.raises(RunError, match="already holds a run"),
        gradflow.Tracer(model, tmp_path / "run"),
    ):
        pytest.fail("the tracer started")
    assert (tmp_path / "run" / "run.json").read_text() == before
    assert not model[0]._forward_hooks


def test_an_epoch_without_steps_is_refused_if_strict(tmp_path):
    with (
        gradflow.Tracer(nn.Sequential(nn.Linear(2, 2)), tmp_path / "run", strict=True) as tracer,
        pytest.raises(TracingError, match="epoch 1 has no steps"),
    ):
        tracer.end_epoch()


def test_step_is_refused_where_the_optimizer_ends_the_steps(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer,
        pytest.raises(TracingError, match="do not call step"),
    ):
        tracer.step()


def test_the_loops_are_loaded_before_the_first_step(tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(cpu, "loops_module", lambda: loaded.append("loops"))
    with gradflow.Tracer(nn.Sequential(nn.Linear(2, 2)), tmp_path / "run"):
        assert loaded
