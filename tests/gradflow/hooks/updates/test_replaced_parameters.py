"""A cosine is that with the gradient of the step before, whatever changes between the steps.

A parameter is what the model has under a name. What changes the model here comes just before a
step that is not recorded, where the gradients for the next one are kept, and before one that is.
"""

import math

import pytest
import torch
from torch import nn
from torch.nn import Parameter

import gradflow

STEPS, BEFORE_UNRECORDED, BEFORE_RECORDED = 12, 5, 10


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.last, self.aside = nn.Linear(4, 2), nn.Linear(4, 4).requires_grad_(False)
        self.double()

    def forward(self, x):
        for layer in self.children():
            if layer is not self.last:
                x = x + torch.tanh(layer(x))
        return self.last(x)


def replaced(net):
    net.second = nn.Linear(4, 4).double()


def replaced_weight_alone(net):
    net.second.weight = Parameter(torch.randn(4, 4).double())


def loaded_by_assignment(net):
    state = {name: one.clone() for name, one in net.state_dict().items()}
    net.load_state_dict(state, assign=True)
    net.aside.requires_grad_(False)


def added(net):
    net.add_module(f"added{len(list(net.children()))}", nn.Linear(4, 4).double())


def removed(net):
    if hasattr(net, "second"):
        del net.second
    else:
        net.second = nn.Linear(4, 4).double()


def tied_and_untied(net):
    is_tied = net.first.weight is net.second.weight
    net.second.weight = Parameter(torch.randn(4, 4).double()) if is_tied else net.first.weight


def swapped(net):
    net.first, net.second = net.second, net.first


def frozen_and_thawed(net):
    net.second.requires_grad_(not net.second.weight.requires_grad)
    net.aside.requires_grad_(not net.aside.weight.requires_grad)


def frozen_and_another_in_its_place(net):
    net.aside = nn.Linear(4, 4).double()
    net.first.requires_grad_(False)


def set_anew_in_place(net):
    with torch.no_grad():
        net.second.weight.normal_()


CHANGES = (
    replaced,
    replaced_weight_alone,
    loaded_by_assignment,
    added,
    removed,
    tied_and_untied,
    swapped,
    frozen_and_thawed,
    frozen_and_another_in_its_place,
    set_anew_in_place,
)


def optimizers_of(net, count):
    parameters = list(net.parameters())
    return [torch.optim.SGD(parameters[k::count], lr=0.05) for k in range(count)]


def train(net, folder, change, optimizers, *, steps=range(STEPS), set_to_none=True, **options):
    """Train; return the cosines by step and name by autograd alone, and the tracer's state.

    `optimizers` says how many there are; with none, the tracer is told of each step's end.
    """
    cosines, last = {}, {}
    given = optimizers_of(net, max(optimizers, 1))
    with gradflow.Tracer(
        net, folder, optimizer=given if optimizers else None, schedule=2, **options
    ) as tracer:
        for step in steps:
            if step in (BEFORE_UNRECORDED, BEFORE_RECORDED):
                torch.manual_seed(step)
                change(net)
                given = optimizers_of(net, max(optimizers, 1))
                if optimizers:
                    tracer.use_optimizer(given)
            net.zero_grad(set_to_none=set_to_none)
            x = torch.randn(5, 4, generator=torch.Generator().manual_seed(step)).double()
            net(x).square().sum().backward()
            trained = {n: one for n, one in net.named_parameters() if one.requires_grad}
            now = {n: one.grad.clone() for n, one in trained.items() if one.grad is not None}
            for name in now.keys() & last.keys():
                both = now[name].flatten(), last[name].flatten()
                cosines[step, name] = torch.cosine_similarity(*both, dim=0).item()
            last = now
            for one in given:
                one.step()
            if not optimizers:
                tracer.step()
        state = tracer.state_dict()
    return cosines, state


def require_all_right(folder, cosines):
    table = gradflow.open_run(folder).parameters.set_index(["step", "parameter"]).gradient_cosine
    assert {step for step, _ in table.index} == set(range(0, STEPS, 2))
    for key, found in table.items():
        assert found == pytest.approx(cosines.get(key, math.nan), rel=1e-9, nan_ok=True), key


@pytest.mark.parametrize("optimizers", [0, 1, 2])
@pytest.mark.parametrize("change", CHANGES)
def test_cosines_are_those_of_two_steps_in_a_row(tmp_path, change, optimizers):
    cosines, _ = train(Net(), tmp_path / "run", change, optimizers)
    require_all_right(tmp_path / "run", cosines)


@pytest.mark.parametrize("change", [replaced, added, tied_and_untied])
def test_gradients_that_are_refilled_are_compared_as_rightly(tmp_path, change):
    cosines, _ = train(Net(), tmp_path / "run", change, 1, set_to_none=False)
    require_all_right(tmp_path / "run", cosines)


@pytest.mark.parametrize("change", [replaced, added, frozen_and_thawed])
@pytest.mark.parametrize("end", [BEFORE_UNRECORDED, BEFORE_RECORDED])
def test_a_resumed_training_compares_with_the_step_before_too(tmp_path, change, end):
    """The tracer has been entered again when the model changes."""
    net = Net()
    first, state = train(net, tmp_path / "run", change, 1, steps=range(end))
    rest = {"steps": range(end, STEPS), "resume": state}
    then, _ = train(net, tmp_path / "run", change, 1, **rest)
    whole, _ = train(Net(), tmp_path / "whole", change, 1)
    assert whole.items() >= {**first, **then}.items()
    require_all_right(tmp_path / "run", whole)
