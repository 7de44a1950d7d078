"""What changes in a model is noticed, and nothing is gone through if nothing has changed."""

import pytest
import torch
from torch import nn
from torch.nn import Parameter

from gradflow.hooks.updates import known
from gradflow.hooks.updates.known import KnownParameters


def model():
    return nn.Sequential(nn.Linear(2, 3), nn.ModuleDict({"a": nn.Linear(3, 3)}), nn.BatchNorm1d(3))


def registers_a_parameter(net):
    net[0].register_parameter("scale", Parameter(torch.ones(1)))


def sets_another_parameter(net):
    net[0].weight = Parameter(torch.ones(3, 2))


def puts_one_past_the_module(net):
    net[0]._parameters["weight"] = Parameter(torch.ones(3, 2))


def renames_a_parameter(net):
    net[0]._parameters["other"] = net[0]._parameters.pop("bias")


def swaps_two_names(net):
    weight, bias = net[2].weight, net[2].bias
    net[2].weight, net[2].bias = bias, weight


def removes_a_parameter(net):
    del net[0].bias


def empties_a_parameter(net):
    net[0].bias = None


def gives_the_module_another_dictionary(net):
    net[0]._parameters = {"weight": Parameter(torch.ones(1))}


def adds_a_module(net):
    net[1]["b"] = nn.Linear(3, 3)


def replaces_a_module(net):
    net[0] = nn.Linear(2, 3)


def removes_a_module(net):
    del net[1]["a"]


def ties_two(net):
    net[1]["a"].bias = net[0].bias


CHANGES = (
    registers_a_parameter,
    sets_another_parameter,
    puts_one_past_the_module,
    renames_a_parameter,
    swaps_two_names,
    removes_a_parameter,
    empties_a_parameter,
    gives_the_module_another_dictionary,
    adds_a_module,
    replaces_a_module,
    removes_a_module,
    ties_two,
)


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_noticed_once(change):
    net = model()
    parameters = KnownParameters(net)
    change(net)
    assert parameters.look_up()
    expected = dict(net.named_parameters())
    assert list(parameters.all) == list(expected) == list(parameters.names)
    assert all(parameters.all[name] is one for name, one in expected.items())
    assert not parameters.look_up()


def test_a_model_that_has_not_changed_is_not_gone_through(monkeypatch):
    net = model()
    parameters = KnownParameters(net)
    monkeypatch.setattr(known, "named_parameters", None)
    trained = parameters.trained()
    assert not parameters.look_up()
    assert parameters.trained() is trained


def test_a_class_that_says_itself_what_its_parameters_are_is_asked_each_time():
    class Choosing(nn.Linear):
        shown = ("weight",)

        def named_parameters(self, *args, **kwargs):
            yield from ((name, getattr(self, name)) for name in self.shown)

    net = Choosing(2, 2)
    parameters = KnownParameters(net)
    assert list(parameters.all) == ["weight"]
    net.shown = ("weight", "bias")
    assert parameters.look_up()
    assert list(parameters.all) == ["weight", "bias"]


def test_frozen_and_thawed_and_late_parameters_are_told():
    net = nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3))
    parameters = KnownParameters(net)
    assert parameters.trained().names == ("0.weight", "0.bias")
    net[0].bias.requires_grad_(False)
    assert parameters.trained().names == ("0.weight",)
    net(torch.ones(1, 2))
    parameters.look_up()
    assert parameters.trained().names == ("0.weight", "1.weight", "1.bias")
    net[0].bias.requires_grad_(True)
    assert parameters.trained().names == tuple(dict(net.named_parameters()))
