"""Additions that are residual, and others that only look residual."""

import math

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from gradflow.hooks.residual.additions import find_residual_additions
from gradflow.hooks.residual.graph import PARAMETER, Structure, Value, read_graph
from gradflow.hooks.residual.junctions import find_junctions


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def made_by_a_layer(*shape):
    """A tensor computed by a layer, whose gradient hooks can read."""
    return nn.Linear(shape[-1], shape[-1])(torch.randn(*shape))


def mlp(inputs, outputs=None):
    return nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, outputs or inputs))


def skip_types(output):
    return [junction.skip_type for junction in find_junctions(output).junctions]


def rotated(x):
    half = x.shape[-1] // 2
    return torch.cat([-x[..., half:], x[..., :half]], -1)


RESIDUAL = {
    "identity": (lambda x: x + mlp(6)(x), ["identity"]),
    "in place": (lambda x: mlp(6)(x).add_(x), ["identity"]),
    "alpha": (lambda x: torch.add(x, mlp(6)(x), alpha=0.3), ["identity"]),
    "scaled branch": (lambda x: x + 0.1 * mlp(6)(x), ["identity"]),
    "branch with a learned factor": (
        lambda x: x + nn.Parameter(torch.zeros(())) * mlp(6)(x),
        ["identity"],
    ),
    "scaled skip": (lambda x: 0.5 * x + mlp(6)(x), ["identity"]),
    "linear branch": (lambda x: x + nn.Linear(6, 6)(x), ["identity"]),
    "linear branch, features in another order": (
        lambda x: x.view(5, 2, 3).transpose(1, 2).flatten(1).clone() + nn.Linear(6, 6)(x),
        ["identity"],
    ),
    "projection": (lambda x: nn.Linear(6, 4)(x) + mlp(6, 4)(x), ["projection"]),
    "zeros appended": (lambda x: F.pad(x, (0, 2)) + mlp(6, 8)(x), ["identity"]),
    "parametrized weight": (
        lambda x: nn.utils.parametrizations.weight_norm(nn.Linear(6, 4))(x) + mlp(6, 4)(x),
        ["projection"],
    ),
    "broadcast branch": (lambda x: x + mlp(6)(x.mean(0, keepdim=True)), ["identity"]),
    "constant added to the skip": (
        lambda x: (x + nn.Parameter(torch.ones(6))) + mlp(6)(x),
        ["identity"],
    ),
    "two one after the other": (
        lambda x: (y := x + mlp(6)(x)) + mlp(6)(y),
        ["identity", "identity"],
    ),
    "branch with a memory": (
        lambda x: x + F.scaled_dot_product_attention(x, *[nn.Linear(6, 6)(torch.randn(5, 6))] * 2),
        ["identity"],
    ),
}


def first_values_reused(x):
    """The values of the first attention are also added to those of the second."""
    values = nn.Linear(6, 6)(x)
    weights = (x @ x.T).softmax(-1)
    y = x + weights @ values
    return y + weights @ (nn.Linear(6, 6)(y) + values)


RESIDUAL["reused values beside two residuals"] = (first_values_reused, ["identity"] * 2)


@pytest.mark.parametrize("name", RESIDUAL)
def test_residual_additions_are_found(name):
    forward, expected = RESIDUAL[name]
    assert skip_types(forward(made_by_a_layer(5, 6))) == expected


def two_towers_of_one_input():
    x = torch.randn(5, 6)
    return mlp(6)(x) + mlp(6)(x)


def embeddings():
    tokens = torch.randint(0, 7, (5,))
    return nn.Embedding(7, 6)(tokens) + nn.Embedding(9, 6)(torch.arange(5))


def position_bias_in_every_layer():
    """As in T5: a lookup that is added to the scores of each layer."""
    x = nn.Embedding(7, 6)(torch.randint(0, 7, (6,)))
    bias = nn.Embedding(9, 6)(torch.arange(6)).T
    for _ in range(3):
        q, k, v = (nn.Linear(6, 6)(x) for _ in range(3))
        x = F.relu((q @ k.T + bias).softmax(-1) @ v)
    return x


def position_queries_in_every_layer():
    """As in DETR: learned queries that are added to the input of each layer."""
    x = made_by_a_layer(5, 6)
    positions = nn.Parameter(torch.randn(5, 6)) * 1
    for _ in range(3):
        x = mlp(6)(x + positions)
    return x


def time_embedding_in_every_layer():
    """As in diffusion models: one embedding of the time, projected into each layer."""
    x, time = made_by_a_layer(5, 6), mlp(4, 6)(torch.randn(5, 4)).relu()
    for _ in range(3):
        x = (mlp(6)(x) + nn.Linear(6, 6)(time)).relu()
    return x


def low_rank_update(x):
    return nn.Linear(6, 6)(x) + nn.Linear(2, 6, bias=False)(nn.Linear(6, 2, bias=False)(x))


def coupling(x):
    first, second = x.chunk(2, -1)
    return torch.cat([first + mlp(3)(second), second], -1)


def loss_terms(x):
    y = mlp(6)(x)
    return F.mse_loss(y, torch.zeros(5, 6)) + 0.1 * x.square().mean()


def gelu_by_hand(x):
    return x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x.pow(3))))


def sum_of_parameters(x):
    a, b = nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(6))
    return mlp(6)(x) * (a + b) + (a * 2 + b.exp())


OTHER = {
    "plain net": lambda x: mlp(6)(mlp(6)(x)),
    "bias by hand": lambda x: x @ torch.randn(6, 6) + nn.Parameter(torch.randn(6)),
    "sum of parameters": sum_of_parameters,
    "position embedding": lambda x: x + nn.Parameter(torch.randn(5, 6)),
    "position embedding, expanded": lambda x: x + nn.Parameter(torch.randn(1, 6)).expand(5, 6),
    "two embeddings": lambda _: embeddings(),
    "position bias": lambda _: position_bias_in_every_layer(),
    "position queries": lambda _: position_queries_in_every_layer(),
    "time embedding": lambda _: time_embedding_in_every_layer(),
    "towers of the input": lambda _: two_towers_of_one_input(),
    "towers of one trunk": lambda x: mlp(6)(x) + mlp(6)(x),
    "unequal towers": lambda x: mlp(6)(x) + mlp(6)(mlp(6)(x)),
    "low-rank update": low_rank_update,
    "loss terms": loss_terms,
    "activation penalty": lambda x: mlp(6)(x).square().sum() + 0.1 * x.abs().sum(),
    "doubling": lambda x: x + x,
    "scaling": lambda x: x + 2 * x.relu(),
    "GELU by hand": gelu_by_hand,
    "rotary embedding": lambda x: x * torch.randn(5, 6) + rotated(x) * torch.randn(5, 6),
    "coupling": coupling,
    "coupling by slices": lambda x: x[:, :3] + mlp(3)(x[:, 3:]),
    "one row added to all": lambda x: x[:1] + mlp(6)(x),
    "one layer beside another": lambda x: nn.Linear(6, 6)(x) + nn.Linear(6, 6)(x).relu(),
    "concatenation": lambda x: torch.cat([x, mlp(6)(x)], -1),
    "bias of the batch": lambda x: x.mean(0, keepdim=True) + mlp(6)(x),
}


@pytest.mark.parametrize("name", OTHER)
def test_other_additions_are_not_reported(name):
    assert skip_types(OTHER[name](made_by_a_layer(5, 6))) == []


def test_concatenations_are_counted():
    x = made_by_a_layer(5, 6)
    found = find_junctions(torch.cat([x, mlp(6)(x)], -1))
    assert (found.junctions, found.concatenations) == ([], 1)


def test_without_a_gradient_at_the_input_there_is_nothing_to_split():
    x = torch.randn(5, 6)
    assert skip_types(x + mlp(6)(x)) == []
    # If the input requires a gradient, it has one, though it is a leaf.
    x.requires_grad_()
    assert skip_types(x + mlp(6)(x)) == ["identity"]


def test_a_frozen_block_still_has_its_addition():
    block = mlp(6).requires_grad_(False)
    x = made_by_a_layer(5, 6)
    assert skip_types(x + block(x)) == ["identity"]


def test_no_graph_no_additions():
    for output in (torch.randn(3), {"a": None, "b": 3}):
        found = find_junctions(output)
        assert (found.junctions, found.concatenations, found.other_sums) == ([], 0, [])


def test_only_additions_made_since_a_number_are_reported():
    x = made_by_a_layer(5, 6)
    y = x + mlp(6)(x)
    start = torch._C._autograd._get_sequence_nr()
    z = y + mlp(6)(y)
    first, second = (found.junctions for found in (find_junctions(y), find_junctions(z, start)))
    assert len(first) == len(second) == 1
    assert first[0].sequence < start <= second[0].sequence


def test_a_user_defined_operation_counts_as_a_branch():
    x = made_by_a_layer(5, 6)
    y = x + torch.utils.checkpoint.checkpoint(mlp(6), x, use_reentrant=True)
    assert skip_types(y) == ["identity"]


def test_a_residual_addition_is_found_from_the_structure_alone():
    # x -> relu -> linear -> y, x + y
    structure = Structure(
        kinds=("(input)", "Relu", "Addmm", "Add"),
        inputs=(
            (),
            (Value(0, 0),),
            (PARAMETER, Value(1, 0), PARAMETER),
            (Value(0, 0), Value(2, 0)),
        ),
        outputs=(3,),
    )
    (residual,) = find_residual_additions(structure).residual
    assert residual.addition == 3
    assert residual.x == Value(0, 0)
    assert residual.skip_nodes == ()
    assert residual.skip_edges == ((3, 0),)
    assert residual.branch_edges == ((1, 0),)
    assert residual.other_edges == ()


def test_the_fused_gru_cell_of_gpus_is_a_gate():
    # x -> norm -> linear -> input gates; x -> hidden gates; the cell, with x as its state
    structure = Structure(
        kinds=("(input)", "NativeLayerNorm", "Mm", "Mm", "ThnnFusedGruCell"),
        inputs=(
            (),
            (Value(0, 0), PARAMETER, PARAMETER),
            (Value(1, 0), PARAMETER),
            (Value(0, 0), PARAMETER),
            (Value(2, 0), Value(3, 0), Value(0, 0), PARAMETER, PARAMETER),
        ),
        outputs=(4,),
    )
    (residual,) = find_residual_additions(structure).residual
    assert residual.skip_type == "gated"
    assert residual.x == Value(0, 0)
    assert residual.skip_edges == ((4, 2),)
    assert residual.branch_edges == ((1, 0), (3, 0))
    assert residual.other_edges == ()


def test_time_grows_in_proportion_to_the_graph():
    # Not a benchmark: a search of quadratic time would take minutes here.
    x = made_by_a_layer(2, 6)
    layer = nn.Linear(6, 6)
    for _ in range(1000):
        x = x + layer(x).relu()
    graph = read_graph(x, 0)
    assert len(find_residual_additions(graph.structure).residual) == 1000


@pytest.mark.parametrize(
    ("name", "additions"),
    [("mobilenet_v3_small", 6), ("swin_t", 24), ("regnet_y_400mf", 16), ("shufflenet_v2_x0_5", 0)],
)
def test_networks_of_torchvision_have_the_additions_of_their_blocks(name, additions):
    model = torchvision.models.get_model(name, weights=None).train()
    assert len(skip_types(model(torch.randn(2, 3, 32, 32)))) == additions
