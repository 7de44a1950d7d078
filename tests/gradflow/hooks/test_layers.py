from dataclasses import dataclass

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import pack_sequence

import gradflow
from gradflow.hooks.layers import LayerTable, channel_axis, first_tensor, observed_modules, role_of


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))


class RMSNormOfAnotherLibrary(Scale):
    pass


class Conv1D(Scale):
    pass


class NewGELUActivation(nn.Module):
    pass


@dataclass
class Output:
    name: str
    nothing: None
    scores: torch.Tensor


@pytest.mark.parametrize(
    ("module", "role"),
    [
        (nn.Conv1d(1, 1, 1), "convolution"),
        (nn.ConvTranspose2d(1, 1, 1), "convolution"),
        (nn.BatchNorm2d(1), "normalization"),
        (nn.LayerNorm(1), "normalization"),
        (nn.GroupNorm(1, 1), "normalization"),
        (nn.GELU(), "activation"),
        (nn.Softmax(1), "activation"),
        (nn.Linear(1, 1), "linear"),
        (nn.LSTM(1, 1), "recurrent"),
        (nn.GRUCell(1, 1), "recurrent"),
        (nn.MultiheadAttention(4, 1), "attention"),
        (nn.Embedding(2, 1), "embedding"),
        (nn.EmbeddingBag(2, 1), "embedding"),
        (RMSNormOfAnotherLibrary(), "normalization"),
        (Conv1D(), "linear"),
        (NewGELUActivation(), "activation"),
        (Scale(), "other"),
        (nn.TransformerEncoderLayer(4, 1), "block"),
        (nn.Sequential(nn.Linear(1, 1)), None),
        (nn.ModuleList([nn.Linear(1, 1)]), None),
        (nn.MaxPool2d(2), None),
        (nn.Dropout(), None),
    ],
)
def test_role(module, role):
    assert role_of(module) == role


def test_resnet18_is_observed_in_all_its_layers_and_blocks_but_not_as_a_whole():
    roles = [role for _, _, role in observed_modules(torchvision.models.resnet18())]
    assert {role: roles.count(role) for role in set(roles)} == {
        "convolution": 20,
        "normalization": 20,
        "activation": 9,
        "linear": 1,
        "block": 8,
    }


@pytest.mark.parametrize(
    ("module", "shape", "axis"),
    [
        (nn.Conv2d(3, 3, 1), (2, 3, 4, 4), 1),
        (nn.ReLU(), (2, 3, 4, 4), 1),
        (nn.ReLU(), (2, 7, 3), 2),
        (nn.BatchNorm1d(7), (2, 7, 3), 1),
        (nn.Linear(3, 3), (2, 7, 7, 3), 3),
        (nn.LayerNorm(3), (2, 7, 7, 3), 3),
        (nn.ReLU(), (5,), None),
        (nn.LSTM(3, 3), (2, 7, 3), 2),
        (nn.Embedding(3, 3), (2, 7, 7, 3), 3),
        (torchvision.models.convnext.LayerNorm2d(3), (2, 3, 7, 7), 1),
    ],
)
def test_channel_axis(module, shape, axis):
    assert channel_axis(module, torch.zeros(shape)) == axis


def test_first_tensor_looks_into_nested_outputs():
    wanted = torch.ones(2)
    assert first_tensor({"a": None, "b": [torch.arange(3), (wanted,)]}) is wanted
    assert first_tensor([None, torch.arange(3), torch.zeros(0)]) is None
    assert first_tensor(Output("a", None, wanted)) is wanted
    assert first_tensor((torch.eye(2).to_sparse(), Output("a", None, [wanted]))) is wanted
    spectrum = torch.ones(2, dtype=torch.complex64)
    assert first_tensor((torch.arange(3), spectrum)) is spectrum
    packed = pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])
    assert first_tensor((packed, None)) is packed.data


def test_a_layer_that_keeps_the_shape_keeps_the_channel_axis(tmp_path):
    # The activation's output [N, H, W, C] shows its axis only by the linear layer before it.
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU())
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.tensor([-1.0, -1, -1, 1, 1, 1]))
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(torch.randn(2, 4, 5, 3)).sum().backward()
        tracer.step()
    dead = gradflow.open_run(tmp_path / "run").activations.set_index("layer").dead_channels
    assert dead["1"] == 3


def test_modules_that_compute_a_weight_are_not_layers():
    model = nn.Sequential(weight_norm(nn.Linear(2, 2)))
    assert [(name, role) for name, _, role in observed_modules(model)] == [("0", "linear")]


def test_a_model_that_is_one_layer_is_observed_under_its_class():
    assert [name for name, _, _ in observed_modules(nn.LSTM(2, 2))] == ["LSTM"]


def test_table_counts_depth_along_the_main_path_and_stages_by_shape():
    table = LayerTable()
    for name, module, role, shape in [
        ("conv1", nn.Conv2d(3, 4, 3), "convolution", (2, 4, 8, 8)),
        ("relu", nn.ReLU(), "activation", (2, 4, 8, 8)),
        ("down", nn.Conv2d(4, 8, 1), "convolution", (2, 8, 4, 4)),
        ("conv2", nn.Conv2d(4, 8, 3), "convolution", (2, 8, 4, 4)),
        ("fc", nn.Linear(8, 5), "linear", (2, 5)),
    ]:
        table.add(name, module, role, torch.zeros(shape))
    table.mark_projection("down")
    columns = table.columns()
    assert columns["depth"] == [1, 1, 1, 2, 3]
    assert columns["stage"] == [0, 0, 1, 1, 2]
    assert columns["role"] == ["convolution", "activation", "projection", "convolution", "linear"]
    assert columns["shape"] == ["4x8x8", "4x8x8", "8x4x4", "8x4x4", "5"]
    assert columns["parameters"][0] == 4 * 3 * 9 + 4
