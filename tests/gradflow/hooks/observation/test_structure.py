"""A model's modules and the names of its parameters, as they were and as they are."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from gradflow.hooks.observation.structure import Structure


class Root(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.second = nn.Sequential(nn.Linear(2, 2), nn.ReLU())

    def forward(self, x):
        return self.second(self.first(x))


def rename(model):
    model.other = model.first
    del model.first


def recycle(model):
    """A new module may get the address of one that is gone."""
    del model.first
    model.first = nn.Linear(2, 2)


CHANGES = {
    "added": lambda model: setattr(model, "third", nn.ReLU()),
    "deep": lambda model: model.second.append(nn.ReLU()),
    "removed": lambda model: delattr(model, "first"),
    "replaced": recycle,
    "renamed": rename,
    "wrapped": lambda model: setattr(model, "first", nn.Sequential(model.first)),
    "moved": lambda model: (model.second.append(model.first), delattr(model, "first")),
    "parameter": lambda model: setattr(model, "scale", nn.Parameter(torch.ones(1))),
    "no module": lambda model: setattr(model, "first", None),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_is_noticed_once(name):
    model = Root()
    structure = Structure(model)
    assert not structure.has_changed()
    CHANGES[name](model)
    assert structure.has_changed()
    assert not structure.has_changed()


def test_training_and_fast_weights_are_no_change():
    model = Root()
    structure = Structure(model)
    seen = []
    model.register_forward_hook(lambda *_: seen.append(structure.has_changed()))
    fast = {name: one * 2 for name, one in model.named_parameters()}
    functional_call(model, fast, (torch.ones(1, 2),)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    model.eval().double().zero_grad()
    assert seen == [False]
    assert not structure.has_changed()
