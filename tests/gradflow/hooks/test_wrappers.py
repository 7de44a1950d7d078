"""Wrappers around a model and its modules leave no trace in names."""

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

import gradflow
from gradflow.hooks.wrappers import named_modules, named_parameters, unwrapped, without_wrappers


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 4), nn.ReLU()))


def test_the_model_and_its_wrappers_are_told_apart():
    model = network()
    compiled = torch.compile(model)
    assert unwrapped(model) == (model, ())
    assert unwrapped(compiled) == (model, (compiled,))
    outer = checkpoint_wrapper(compiled)
    assert unwrapped(outer) == (model, (outer, compiled))


def test_modules_and_parameters_have_the_names_of_the_model_without_wrappers():
    plain, model = network(), network()
    model[1][0] = checkpoint_wrapper(model[1][0])
    model[1] = torch.compile(model[1])
    assert [name for name, _ in named_modules(model)] == [name for name, _ in plain.named_modules()]
    assert [type(module) for _, module in named_modules(model)] == list(map(type, plain.modules()))
    names = [name for name, _ in named_parameters(model)]
    assert names == [name for name, _ in plain.named_parameters()]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("layer1.0.weight", "layer1.0.weight"),
        ("_orig_mod.layer1._orig_mod.0.weight", "layer1.0.weight"),
        ("_orig_mod", ""),
        ("my_orig_mod.weight", "my_orig_mod.weight"),
    ],
)
def test_only_whole_parts_of_a_name_are_left_out(name, expected):
    assert without_wrappers(name) == expected


def test_lists_of_parameters_are_no_layers():
    model = nn.ModuleDict(
        {"list": nn.ParameterList([nn.Parameter(torch.ones(2))]), "linear": nn.Linear(2, 2)}
    )
    model["dict"] = nn.ParameterDict({"a": nn.Parameter(torch.ones(2))})
    assert list(gradflow.layers(model).layer) == ["linear"]
