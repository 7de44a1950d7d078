"""Gradients that a step finds from the step before are told from those that it adds up itself."""

import pytest
import torch
from torch import nn

from gradflow import Tracer
from gradflow.runs.reading.run import open_run


def two_parts():
    torch.manual_seed(0)
    return nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})


def carried_over(folder):
    table = open_run(folder).table("gradients_before")
    return (table["carried_over"] > 0).groupby(table["step"]).sum().tolist()


def train(folder, zero, *, steps=3, passes=1):
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Tracer(model, folder, optimizer=optimizer) as tracer:
        for _ in range(steps):
            zero(optimizer)
            for _ in range(passes):
                model(torch.rand(4, 3)).sum().backward()
            optimizer.step()
        tracer.end_epoch()


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("set_to_none", [True, False])
def test_zeroed_gradients_are_not_carried_over(tmp_path, set_to_none, passes):
    train(tmp_path, lambda one: one.zero_grad(set_to_none=set_to_none), passes=passes)
    assert carried_over(tmp_path) == [0, 0, 0]


@pytest.mark.parametrize("passes", [1, 3])
def test_gradients_that_nobody_zeroes_are(tmp_path, passes):
    train(tmp_path, lambda one: None, passes=passes)
    assert carried_over(tmp_path) == [0, 4, 4]


def test_the_number_is_the_largest_element_of_what_is_there(tmp_path):
    model = nn.Sequential(nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with Tracer(model, tmp_path, optimizer=optimizer) as tracer:
        for _ in range(3):
            model(torch.tensor([[1.0, -4.0]])).sum().backward()
            optimizer.step()
        tracer.end_epoch()
    table = open_run(tmp_path).table("gradients_before")
    weight = table.loc[table["parameter"] == "0.weight", "carried_over"]
    assert weight.tolist() == [0.0, 4.0, 8.0]


def test_a_closure_that_zeroes_them_carries_nothing_over(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2))
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)

    def closure():
        optimizer.zero_grad()
        loss = (model(torch.ones(4, 3)) - 1).square().mean()
        loss.backward()
        return loss

    with Tracer(model, tmp_path, optimizer=optimizer) as tracer:
        for _ in range(3):
            optimizer.step(closure)
        tracer.end_epoch()
    assert carried_over(tmp_path) == [0, 0, 0]


def test_each_optimizer_is_watched(tmp_path):
    model = two_parts()
    zeroed = torch.optim.SGD(model["a"].parameters(), lr=0.01)
    forgotten = torch.optim.Adam(model["b"].parameters(), lr=0.01)
    with Tracer(model, tmp_path, optimizer=[zeroed, forgotten]) as tracer:
        for _ in range(3):
            zeroed.zero_grad()
            tracer.begin_pass()
            model["b"](model["a"](torch.rand(4, 3))).sum().backward()
            zeroed.step()
            forgotten.step()
        tracer.end_epoch()
    table = open_run(tmp_path).table("gradients_before")
    last = table[table["step"] == 2]
    found = last.groupby("optimizer")["carried_over"].min() > 0
    assert found.to_dict() == {"Adam": True, "SGD": False}


def test_an_adversary_s_pass_before_its_gradients_are_zeroed_carries_nothing_over(tmp_path):
    generator, critic = nn.Linear(3, 3), nn.Linear(3, 1)
    of_generator = torch.optim.SGD(generator.parameters(), lr=0.01)
    of_critic = torch.optim.SGD(critic.parameters(), lr=0.01)
    with Tracer(critic, tmp_path, optimizer=of_critic) as tracer:
        for _ in range(3):
            of_generator.zero_grad()
            critic(generator(torch.rand(4, 3))).sum().backward()
            of_generator.step()
            of_critic.zero_grad()
            critic(torch.rand(4, 3)).sum().backward()
            of_critic.step()
        tracer.end_epoch()
    assert carried_over(tmp_path) == [0, 0, 0]
