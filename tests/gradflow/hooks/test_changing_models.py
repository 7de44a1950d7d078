"""Modules and parameters that come, go or are replaced while the model trains."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

import gradflow


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch = nn.Linear(4, 4)

    def forward(self, x):
        return x + self.branch(x).tanh()


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), Block()).double()


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(5, 3, generator=generator, dtype=torch.float64)


class Training:
    """Trains, and notes the norms of all gradients and updates by hand."""

    def __init__(self, model, optimizer):
        self.model, self.optimizer = model, optimizer
        self.gradients, self.updates = [], []

    def step(self):
        self.optimizer.zero_grad()
        self.model(batch(len(self.gradients))).square().mean().backward()
        named = dict(self.model.named_parameters())
        self.gradients.append({name: float(one.grad.norm()) for name, one in named.items()})
        before = {name: one.detach().clone() for name, one in named.items()}
        self.optimizer.step()
        self.updates.append(
            {name: float((one.detach() - before[name]).norm()) for name, one in named.items()}
        )

    def compare(self, run, steps):
        rows = run.parameters.set_index(["step", "parameter"])
        for step in steps:
            mine = rows.loc[step]
            for column in ("gradient_norm", "backward_gradient_norm"):
                expected = pytest.approx(self.gradients[step], rel=1e-9)
                assert mine[column].dropna().to_dict() == expected
            expected = pytest.approx(self.updates[step], rel=1e-6)
            assert mine.update_norm.to_dict() == expected


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


@pytest.mark.parametrize("schedule", [1, 2])
@pytest.mark.parametrize("observe", [None, ["0", "*.branch"]])
def test_blocks_added_while_training_are_recorded_from_the_next_step_on(
    tmp_path, schedule, observe
):
    """Progressive growing: new blocks, and a group of the optimizer for each."""
    model = network()
    training = Training(model, sgd(model))
    with gradflow.Tracer(
        model, tmp_path / "run", optimizer=training.optimizer, schedule=schedule, observe=observe
    ) as tracer:
        for _ in range(3):
            for _ in range(2):
                training.step()
            tracer.end_epoch()
            model.append(Block().double())
            training.optimizer.add_param_group({"params": model[-1].parameters(), "lr": 0.5})
    run = gradflow.open_run(tmp_path / "run")
    training.compare(run, range(0, 6, schedule))
    first = [0, 2, 4]  # the first step of each epoch, recorded with both schedules
    for place, step in enumerate(first):
        layers = set(run.gradients[run.gradients.step == step].layer)
        assert {name for name in layers if "branch" in name} == {
            f"{1 + block}.branch" for block in range(place + 1)
        }
        assert ("1" in layers) == (observe is None)
        additions = set(run.junctions[run.junctions.step == step].layer)
        assert additions == {str(1 + block) for block in range(place + 1)}
    changes = run.description["model_changes"]
    assert [one["step"] for one in changes] == [2, 4]
    added = ["2", "2.branch"] if observe is None else ["2.branch"]
    assert changes[0]["layers_added"] == added
    assert changes[0]["parameters_added"] == ["2.branch.weight", "2.branch.bias"]
    groups = run.parameters[run.parameters.step == 4].set_index("parameter").group
    assert groups["2.branch.bias"] == 1
    assert groups["3.branch.bias"] == 2


def test_gradients_of_an_added_layers_output_are_those_by_hand(tmp_path):
    model, expected = network(), []
    optimizer = sgd(model)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for step in range(3):
            if step == 1:
                model.append(nn.Linear(4, 2).double())
                optimizer.add_param_group({"params": model[2].parameters()})
            optimizer.zero_grad()
            out = model(batch(step))
            out.retain_grad()
            out.square().mean().backward()
            expected.append(float(out.grad.norm()))
            optimizer.step()
        tracer.end_epoch()
    rows = gradflow.open_run(tmp_path / "run").gradients
    assert rows[rows.layer == "2"].step.tolist() == [1, 2]
    assert rows[rows.layer == "2"].norm.tolist() == pytest.approx(expected[1:], rel=1e-9)


def test_a_parameter_that_is_replaced_under_its_name(tmp_path):
    """As when embeddings are resized."""
    model = network()
    training = Training(model, sgd(model))
    with gradflow.Tracer(model, tmp_path / "run", optimizer=training.optimizer) as tracer:
        training.step()
        model[0].weight = nn.Parameter(torch.ones(4, 3, dtype=torch.float64))
        training.optimizer = sgd(model)
        tracer.use_optimizer(training.optimizer)
        training.step()
        training.step()
        tracer.end_epoch()
    run = gradflow.open_run(tmp_path / "run")
    training.compare(run, range(3))
    row = run.parameters.set_index(["step", "parameter"]).loc[1, "0.weight"]
    assert row.weight_norm == pytest.approx(12**0.5)


def test_a_layer_that_moves_into_another_has_its_new_name(tmp_path):
    """As adapters wrap the layers of a model that trains already."""
    model = network()
    training = Training(model, sgd(model))
    with gradflow.Tracer(model, tmp_path / "run", optimizer=training.optimizer) as tracer:
        training.step()
        model[0] = nn.Sequential(model[0], nn.Linear(4, 4).double())
        training.optimizer.add_param_group({"params": model[0][1].parameters()})
        training.step()
        tracer.end_epoch()
    run = gradflow.open_run(tmp_path / "run")
    training.compare(run, range(2))
    by_step = run.activations.groupby("step").layer.apply(set)
    assert by_step[0] == {"0", "1", "1.branch"}
    assert by_step[1] == {"0.0", "0.1", "1", "1.branch"}
    assert run.description["model_changes"][0]["layers_removed"] == ["0"]
    assert run.description["model_changes"][0]["parameters_removed"] == ["0.bias", "0.weight"]


def test_a_layer_that_is_removed_has_no_hook_and_no_row(tmp_path):
    model = network()
    training = Training(model, sgd(model))
    with gradflow.Tracer(model, tmp_path / "run", optimizer=training.optimizer) as tracer:
        training.step()
        removed = model.pop(1)
        training.step()
        assert not removed._forward_hooks
        assert not removed._forward_pre_hooks
        assert not removed.branch._forward_hooks
        training.step()
        tracer.end_epoch()
    run = gradflow.open_run(tmp_path / "run")
    training.compare(run, range(3))
    assert set(run.gradients[run.gradients.step == 2].layer) == {"0"}
    assert set(run.junctions.step) == {0}


def test_without_an_optimizer_an_added_parameter_has_weight_and_update(tmp_path):
    model = network()
    training = Training(model, sgd(model))
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        training.step()
        tracer.step()
        model.append(nn.Linear(4, 2).double())
        training.optimizer = sgd(model)
        training.step()
        tracer.step()
        tracer.end_epoch()
    training.compare(gradflow.open_run(tmp_path / "run"), range(2))


def test_all_hooks_come_off_a_model_that_has_grown(tmp_path):
    model = network()
    training = Training(model, sgd(model))
    with gradflow.Tracer(model, tmp_path / "run", optimizer=training.optimizer):
        training.step()
        model.append(Block().double())
        training.step()
        assert model[2]._forward_hooks
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_fast_weights_are_not_taken_for_parameters_of_the_model(tmp_path):
    """`functional_call` puts other tensors in the places of the parameters while the model runs."""
    model = network()
    optimizer = sgd(model)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for step in range(2):
            optimizer.zero_grad()
            named = dict(model.named_parameters())
            fast = {name: one * 0.9 for name, one in named.items()}
            functional_call(model, fast, (batch(step),)).square().mean().backward()
            expected = {name: float(one.grad.norm()) for name, one in named.items()}
            optimizer.step()
        tracer.end_epoch()
    run = gradflow.open_run(tmp_path / "run")
    rows = run.parameters[run.parameters.step == 1].set_index("parameter")
    assert rows.backward_gradient_norm.to_dict() == pytest.approx(expected, rel=1e-9)
    assert "model_changes" not in run.description


def test_a_selection_that_no_module_is_left_for_is_said_once(tmp_path):
    model = network()
    training = Training(model, sgd(model))

    def train():
        with gradflow.Tracer(
            model, tmp_path / "run", optimizer=training.optimizer, observe="1.branch"
        ) as tracer:
            training.step()
            del model[1]
            training.step()
            training.step()
            tracer.end_epoch()

    with pytest.warns(UserWarning, match="chooses no module") as said:
        train()
    assert len(said) == 1
    run = gradflow.open_run(tmp_path / "run")
    assert set(run.gradients.step) == {0}
    assert set(run.parameters.step) == {0, 1, 2}


@pytest.mark.parametrize("change", ["shrunk", "grown", "resized"])
def test_a_run_resumes_with_a_model_that_has_changed_since(tmp_path, change):
    model = network()
    training = Training(model, sgd(model))
    with gradflow.Tracer(model, tmp_path / "run", optimizer=training.optimizer) as tracer:
        training.step()
        tracer.end_epoch()
        state = tracer.state_dict()
    model = network()
    if change == "shrunk":
        del model[1]
    elif change == "grown":
        model.append(Block().double())
    else:
        model[1] = nn.Linear(4, 2).double()
        model[0] = nn.Linear(3, 4, bias=False).double()
    again = Training(model, sgd(model))
    again.gradients, again.updates = list(training.gradients), list(training.updates)
    with gradflow.Tracer(
        model, tmp_path / "run", optimizer=again.optimizer, resume=state
    ) as tracer:
        again.step()
        again.step()
        tracer.end_epoch()
    again.compare(gradflow.open_run(tmp_path / "run"), range(3))


@pytest.mark.parametrize("hooked", [False, True])
def test_a_module_that_goes_between_two_accumulated_passes_leaves_no_rows(tmp_path, hooked):
    """Without an optimizer: its weights were measured before it went."""
    model = network()
    if hooked:  # its gradients are read as they arrive
        model[1].branch.weight.register_post_accumulate_grad_hook(lambda parameter: None)
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(batch(0)).square().mean().backward()
        model[1] = nn.Identity()
        model(batch(1)).square().mean().backward()
        expected = {name: float(one.grad.norm()) for name, one in model.named_parameters()}
        tracer.step()
        tracer.end_epoch()
    rows = gradflow.open_run(tmp_path / "run").parameters.set_index("parameter")
    assert rows.backward_gradient_norm.to_dict() == pytest.approx(expected, rel=1e-9)
    assert rows.gradient_norm.to_dict() == pytest.approx(expected, rel=1e-9)
    assert rows.update_norm.to_dict() == dict.fromkeys(expected, 0.0)
