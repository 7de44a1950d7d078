"""The module that created a node, found from sequence numbers."""

import pytest
import torch
from torch import nn

from gradflow.hooks.residual.module_order import ModuleOrder, may_add, next_sequence_number


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)


def make_node():
    return torch.ones(1, requires_grad=True).exp().grad_fn._sequence_nr()


def test_each_node_belongs_to_the_innermost_module_that_ran():
    order, block = ModuleOrder(), Block()
    before = make_node()
    order.enter("outer", block)
    first = make_node()
    order.enter("outer.a", block)
    second = make_node()
    assert not order.leave("outer.a")
    third = make_node()
    order.enter("outer.a", block)
    fourth = make_node()
    assert not order.leave("outer.a")
    assert order.leave("outer")
    named = [order.module_at(node) for node in (before, first, second, third, fourth)]
    assert named == [None, "outer", "outer.a", "outer", "outer.a#2"]
    assert before < order.start <= first


def test_an_outermost_module_begins_a_pass_and_calls_count_on():
    order = ModuleOrder()
    for name in ("a", "a#2"):
        order.enter("a", Block())
        node = make_node()
        assert order.leave("a")
        assert order.module_at(node) == name
    order.forget()
    assert order.module_at(make_node()) is None
    assert not order.leave("a")


def test_a_module_ended_by_an_exception_ends_with_the_one_around_it():
    order = ModuleOrder()
    order.enter("outer", Block())
    order.enter("inner", Block())
    assert order.leave("outer")


def test_recurrent_layers_have_no_name():
    order = ModuleOrder()
    order.enter("outer", Block())
    order.enter("outer.rnn", nn.GRU(2, 2))
    node = make_node()
    order.leave("outer.rnn")
    assert order.module_at(node) is None
    assert order.module_at(make_node()) == "outer"


class OwnSequence(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


class OwnLayer(nn.Module):
    def forward(self, x):
        return x


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Linear(2, 2), False),
        (nn.Dropout(), False),
        (nn.Sequential(nn.Linear(2, 2)), False),
        (nn.ModuleList([nn.Linear(2, 2)]), False),
        (nn.GRU(2, 2), True),
        (nn.TransformerEncoderLayer(4, 2), True),
        (OwnSequence(nn.Linear(2, 2)), True),
        (OwnLayer(), True),
    ],
)
def test_modules_that_may_add_are_those_with_a_forward_of_their_own(module, expected):
    assert may_add(module) is expected


def test_the_next_number_is_the_next_nodes():
    number = next_sequence_number()
    assert make_node() == number
