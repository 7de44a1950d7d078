import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from gradflow.hooks.residual import junctions
from gradflow.hooks.residual.graph import read_graph
from gradflow.hooks.residual.known_graph import GraphReader
from gradflow.hooks.residual.module_order import next_sequence_number

LAYER = nn.Linear(4, 4)
OTHER = nn.Linear(4, 4)
SCALE = nn.Parameter(torch.ones(4))
BEFORE = torch.ones(3, 4, requires_grad=True) * 2
LEAF = torch.ones(3, 4, requires_grad=True)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


def put(x, *, accumulate):
    return x.index_put((torch.tensor([0]),), LAYER(x)[:1], accumulate=accumulate)


def unbound(x):
    return torch.stack([x, LAYER(x)]).unbind()


def in_place_on_view(x):
    y = LAYER(x) * 1
    y[0].add_(LAYER(x)[0])
    return y


# Functions that build as many nodes, in twos: of each pair only the structure differs.
DIFFERENT = [
    (lambda x: x + LAYER(x).tanh(), lambda x: x * LAYER(x).tanh()),
    (lambda x: x + LAYER(x).tanh(), lambda x: x + LAYER(x).sigmoid()),
    (lambda x: x - LAYER(x), lambda x: LAYER(x) - x),
    (lambda x: x + LAYER(x), lambda x: LAYER(x) + LAYER(x).detach()),
    (lambda x: x + LAYER(x) * SCALE, lambda x: x + LAYER(x) * LEAF[0]),
    (lambda x: x + LAYER(x) * SCALE, lambda x: x + LAYER(x) * LEAF),
    (lambda x: (x + LAYER(x)) * BEFORE, lambda x: (x + LAYER(x)) * torch.ones(3, 4)),
    (lambda x: torch.relu(x) + torch.relu(x), lambda x: torch.relu(x).add(torch.relu(LEAF))),
    (lambda x: x + Doubled.apply(x), lambda x: x + (x * 2)),
    (lambda x: put(x, accumulate=True), lambda x: put(x, accumulate=False)),
    (lambda x: (x, LAYER(x)), lambda x: (LAYER(x), x)),
    (lambda x: unbound(x)[0] * 2, lambda x: unbound(x)[1] * 2),
    (in_place_on_view, lambda x: (LAYER(x) * 1).add(LAYER(x)[0])),
]


def graph_of(function, reader=None):
    start = next_sequence_number()
    output = function(torch.ones(3, 4, requires_grad=True) * 3)
    return (reader.read if reader else read_graph)(output, start)


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_a_graph_is_read_anew_if_its_structure_has_changed(first, second):
    reader = GraphReader()
    known = graph_of(first, reader)
    for function in (first, second, second, first):
        found, expected = graph_of(function, reader), graph_of(function)
        assert found.structure == expected.structure
        assert [type(node) for node in found.nodes] == [type(node) for node in expected.nodes]
        if function is first and found.structure is known.structure:
            assert found.nodes != known.nodes
    assert graph_of(first).structure != graph_of(second).structure, "the pair shows nothing"


@pytest.mark.parametrize("function", [pair[0] for pair in DIFFERENT])
def test_a_graph_with_the_structure_of_the_last_one_is_not_read_anew(function, monkeypatch):
    reader = GraphReader()
    known = graph_of(function, reader)
    monkeypatch.setattr(
        "gradflow.hooks.residual.known_graph.read_graph", lambda *_: pytest.fail("read anew")
    )
    assert graph_of(function, reader).structure is known.structure


def test_another_parameter_in_the_place_of_one_is_still_a_parameter():
    reader = GraphReader()
    known = graph_of(lambda x: x + LAYER(x), reader)
    assert graph_of(lambda x: x + OTHER(x), reader).structure is known.structure


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.map = nn.LayerNorm(4), nn.Linear(4, 4)

    def forward(self, x):
        return x + self.map(F.gelu(self.norm(x)))


class Dropping(nn.Module):
    """Leaves out the blocks that `dropped` tells, as stochastic depth does."""

    def __init__(self):
        super().__init__()
        self.first, self.blocks = nn.Linear(4, 4), nn.ModuleList(Block() for _ in range(3))
        self.dropped = -1

    def forward(self, x):
        x = self.first(x)
        for place, block in enumerate(self.blocks):
            x = x if place == self.dropped else block(x)
        return x


def test_dropped_layers_and_other_shapes_are_recorded_as_without_a_plan(tmp_path, monkeypatch):
    def train(folder):
        torch.manual_seed(0)
        model = Dropping()
        with gradflow.Tracer(model, folder) as tracer:
            for dropped, rows in ((-1, 3), (-1, 5), (0, 3), (1, 3), (1, 1), (-1, 3), (-1, 3)):
                model.dropped = dropped
                model(torch.randn(rows, 2, 4)).square().sum().backward()
                tracer.step()
        return gradflow.open_run(folder).table("junctions")

    planned = train(tmp_path / "planned")
    monkeypatch.setattr(junctions.GraphReader, "read", lambda _, *given: read_graph(*given))
    assert planned.equals(train(tmp_path / "anew"))
    assert planned.groupby("step").size().tolist() == [3, 3, 2, 2, 2, 3, 3]
