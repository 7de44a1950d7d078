import pytest
import torch
from torch import nn

from gradflow.probes.network.calls import modules_with_parameters, record_calls
from gradflow.probes.probe import NotMeasurableError


def test_inputs_and_gradients_are_those_before_a_relu_in_place():
    torch.manual_seed(0)
    layer = nn.Linear(3, 4).double()
    x, weights = torch.randn(2, 3).double(), torch.randn(2, 4).double()

    def scalar():
        return (torch.relu_(layer(x)) * weights).sum()

    (call,) = record_calls({"layer": layer}, scalar)
    assert torch.equal(call.inputs, x)
    assert torch.equal(call.gradient, weights * (layer(x) > 0))


def test_a_second_call_is_numbered():
    layer = nn.Linear(3, 3)
    calls = record_calls({"a": layer}, lambda: 5 * layer(2 * layer(torch.ones(1, 3))).sum())
    assert [call.name for call in calls] == ["a", "a#2"]
    assert torch.equal(calls[1].gradient, torch.full((1, 3), 5.0))
    assert torch.allclose(calls[0].gradient, 10 * layer.weight.sum(0, keepdim=True))


def test_an_output_that_the_scalar_does_not_depend_on_has_gradient_zero():
    used, spare = nn.Linear(3, 2), nn.Linear(3, 4)
    x = torch.ones(5, 3)

    def scalar():
        spare(x)
        return used(x).sum()

    calls = record_calls({"spare": spare, "used": used}, scalar)
    assert torch.equal(calls[0].gradient, torch.zeros(5, 4))


def test_hooks_are_removed_even_after_an_error():
    layer = nn.LSTM(3, 3)

    def scalar():
        return layer(torch.ones(2, 1, 3))[0].sum()

    with pytest.raises(NotMeasurableError, match="lstm does not turn one tensor into one tensor"):
        record_calls({"lstm": layer}, scalar)
    assert not layer._forward_hooks


def test_modules_with_parameters_are_those_that_hold_them():
    model = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    assert list(modules_with_parameters(model)) == ["1.0", "1.1"]
    assert list(modules_with_parameters(nn.Linear(2, 2))) == ["Linear"]
