"""If a value is not finite, the training names the place and follows `--on-nonfinite`."""

import pytest
import torch
from torch import nn

import gradflow
from gradflow.data import Batch
from gradflow.train_and_trace import main
from gradflow.training.state import load_state
from gradflow.training.steps import losses
from gradflow.training.steps.nonfinite import (
    find_nonfinite,
    gradients_are_finite,
    nonfinite_from_trace,
)


class Spoil(nn.Module):
    """Returns its input; spoils one value of the output or of the gradient on request."""

    def __init__(self, forward: float = 0.0, backward: float = 0.0) -> None:
        super().__init__()
        self.forward_value, self.backward_value = forward, backward

    def forward(self, x):
        if self.backward_value:
            x = x * 1
            x.register_hook(lambda gradient: gradient * self.backward_value)
        return x + self.forward_value


def batch(images=None):
    if images is None:
        images = torch.arange(24.0).reshape(4, 6)
    return Batch(images, torch.tensor([0, 1, 0, 1]), torch.arange(4))


def network(spoil):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), spoil, nn.ReLU(), nn.Linear(5, 2))


def test_nothing_is_found_if_all_values_are_finite():
    assert find_nonfinite(network(Spoil()), batch(), 3) is None


def test_the_first_bad_layer_is_named_not_those_it_spoils():
    found = find_nonfinite(network(Spoil(forward=float("inf"))), batch(), 3)
    assert (found.step, found.place, found.count) == (3, "the output of layer 1", 20)


def test_the_first_bad_gradient_on_the_way_back_is_named():
    model = network(Spoil(backward=float("nan")))
    found = find_nonfinite(model, batch(), 0)
    assert found.place == "the gradient of the output of layer 0"
    assert all(parameter.grad is None for parameter in model.parameters())


def test_bad_images_and_weights_come_before_the_layers():
    images = batch().images.clone()
    images[2, 1] = float("nan")
    model = network(Spoil())
    assert str(find_nonfinite(model, batch(images), 7)) == (
        "step 7 has 1 non-finite value in the images"
    )
    with torch.no_grad():
        model[3].weight[0, :2] = float("inf")
    assert find_nonfinite(model, batch(), 7).place == "the weights 3.weight"
    assert find_nonfinite(model, batch(), 7).count == 2


def test_the_tracers_finding_is_worded_in_the_same_way(tmp_path):
    model = network(Spoil(backward=float("inf")))
    expected = find_nonfinite(model, batch(), 0)
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        assert nonfinite_from_trace(tracer.first_nonfinite()) is None
        model(batch().images).sum().backward()
        tracer.step()
        assert nonfinite_from_trace(tracer.first_nonfinite()) == expected


def test_gradients_are_finite_or_not():
    model = network(Spoil())
    assert gradients_are_finite(model)
    model(batch().images).sum().backward()
    assert gradients_are_finite(model)
    model[0].bias.grad[1] = float("nan")
    assert not gradients_are_finite(model)


def arguments(images, folder, *others):
    options = ["--models", "plain20", "--epochs", "2", "--batch-size", "8", "--probes", "none"]
    options += ["--device", "cpu"]
    return [*options, "--data", str(images), "--out", str(folder), *others]


def test_a_training_that_diverges_stops_names_the_place_and_keeps_its_rows(
    images, tmp_path, capsys
):
    diverging = ["--lr", "1e30", "--norm", "none", "--trace-every", "1"]
    assert main(arguments(images, tmp_path / "run", *diverging)) == 1
    message = " ".join(capsys.readouterr().err.split())
    assert "the training of plain20 stopped: step 1 has" in message
    run = gradflow.open_experiment(tmp_path / "run").runs[0]
    assert run.description["status"] == "failed"
    assert run.description["stopped_by"] in message
    assert list(run.steps.step) == [0]
    assert load_state(run.folder) is None


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        ("1", "step 1 has"),
        ("3", "the loss of step 1 was not finite, and that step was not recorded (--trace-every 1"),
    ],
)
def test_losses_that_are_checked_rarely_are_checked_by_the_end_of_the_epoch(
    every, expected, images, tmp_path, capsys, monkeypatch
):
    # As on an accelerator, where a check would wait for the device.
    monkeypatch.setattr(losses, "works_behind", lambda _: True)
    diverging = ["--lr", "1e30", "--norm", "none", "--trace-every", every]
    assert main(arguments(images, tmp_path / "run", *diverging)) == 1
    message = " ".join(capsys.readouterr().err.split())
    assert f"the training of plain20 stopped: {expected}" in message
    assert ("of layer" in message) == (every == "1")
    run = gradflow.open_experiment(tmp_path / "run").runs[0]
    assert run.description["stopped_by"] in message
    assert run.epochs.empty


@pytest.mark.parametrize(("policy", "skipped"), [("skip", True), ("continue", False)])
def test_a_training_goes_on_with_skip_and_continue(images, tmp_path, policy, skipped):
    diverging = ["--lr", "1e30", "--norm", "none", "--trace-every", "1", "--no-recalibrate"]
    folder = tmp_path / "run"
    assert main(arguments(images, folder, *diverging, "--on-nonfinite", policy)) == 0
    run = gradflow.open_experiment(folder).runs[0]
    assert run.steps.skipped.tolist()[2:] == [skipped] * 4
    weights = torch.load(next(folder.glob("*/best.pt")), weights_only=True)["state_dict"]
    finite = all(torch.isfinite(weight).all() for weight in weights.values())
    assert finite == skipped
