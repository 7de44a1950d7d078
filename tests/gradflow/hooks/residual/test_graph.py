"""The graph of a pass as numbers, against graphs written by hand."""

from dataclasses import dataclass

import torch
from torch import nn

from gradflow.hooks.residual.graph import (
    INPUT,
    PARAMETER,
    Value,
    read_graph,
    shape_of,
    tensors_in,
)


def test_nodes_come_after_the_nodes_that_they_read():
    layer = nn.Linear(3, 4)
    x = torch.randn(2, 3)
    y = layer(x).relu()
    structure = read_graph(y * 2 + y, 0).structure
    assert structure.kinds == ("T", "Addmm", "Relu", "Mul", "Add")
    assert structure.inputs == (
        (PARAMETER,),
        (PARAMETER, None, Value(0, 0)),
        (Value(1, 0),),
        (Value(2, 0), None),
        (Value(3, 0), Value(2, 0)),
    )
    assert structure.outputs == (4,)


def test_two_passes_have_equal_structures_and_other_nodes():
    layer = nn.Linear(3, 4)
    first, second = (read_graph(layer(torch.randn(2, 3)), 0) for _ in range(2))
    assert first.structure == second.structure
    assert hash(first.structure) == hash(second.structure)
    assert not set(first.nodes) & set(second.nodes)


def test_outputs_of_one_node_are_told_apart():
    x = nn.Linear(3, 4)(torch.randn(2, 3))
    first, second = x.chunk(2, -1)
    structure = read_graph(first * second, 0).structure
    split = structure.kinds.index("Split")
    assert structure.inputs[-1] == (Value(split, 0), Value(split, 1))


def test_nodes_made_before_the_pass_are_not_read():
    x = nn.Linear(3, 4)(torch.randn(2, 3)).relu()
    start = torch._C._autograd._get_sequence_nr()
    structure = read_graph(x.exp(), start).structure
    assert structure.kinds == (INPUT, "Exp")


def test_a_leaf_that_is_no_parameter_is_an_input():
    x = torch.randn(3, requires_grad=True)
    structure = read_graph(x * nn.Parameter(torch.ones(3)), 0).structure
    assert structure.kinds == (INPUT, "Mul")
    assert structure.inputs[1] == (Value(0, 0), PARAMETER)


def test_names_of_operations_of_the_users_are_kept():
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, gradient):
            return 2 * gradient

    structure = read_graph(Twice.apply(torch.randn(3, requires_grad=True)), 0).structure
    assert structure.kinds[-1] == "TwiceBackward"


def test_tensors_are_found_in_nested_outputs():
    @dataclass
    class Output:
        logits: torch.Tensor
        rest: object = None

    a, b, c = (torch.tensor(float(value)) for value in range(3))
    found = list(tensors_in({"a": a, "rest": [Output(b, (c, None, "text")), 3, Output]}))
    assert [float(tensor) for tensor in found] == [0, 1, 2]


def test_shapes_are_those_of_the_outputs():
    x = nn.Linear(3, 5)(torch.randn(2, 3))
    first, second = x.split([1, 4], -1)
    assert shape_of(x.grad_fn, 0) == (2, 5)
    assert shape_of(first.grad_fn, 1) == tuple(second.shape)
    assert shape_of(x.grad_fn, 7) is None
