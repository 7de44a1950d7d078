"""The networks against torchvision's and against the counts published by He et al. 2015."""

import pytest
import torch
import torchvision
from torch import nn

from gradflow.models import MODEL_NAMES, build


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("ours_first", [True, False])
def test_state_dicts_are_interchangeable_with_torchvision(name, training, ours_first, images):
    ours = build(name, classes=7, seed=3)
    theirs = torchvision.models.get_model(name, num_classes=7)
    source, target = (ours, theirs) if ours_first else (theirs, ours)
    # a step in training mode, so that the running statistics differ from their initial values
    source.train()(images)
    target.load_state_dict(source.state_dict(), strict=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())

    a, b = source.train(training)(images), target.train(training)(images)

    torch.testing.assert_close(a, b, rtol=0, atol=0)
    for (key, x), y in zip(source.state_dict().items(), target.state_dict().values(), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0, msg=key)


def test_the_backward_pass_equals_torchvisions(images):
    ours, theirs = build("resnet18", classes=5, seed=0), torchvision.models.resnet18(num_classes=5)
    theirs.load_state_dict(ours.state_dict())
    for network in (ours, theirs):
        network(images).logsumexp(1).sum().backward()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("resnet34", 21_797_672), ("plain34", 21_623_848), ("resnet18", 11_689_512)],
)
def test_parameter_counts_at_a_thousand_classes(name, parameters):
    assert count(build(name, classes=1000, seed=0)) == parameters


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, "0.27"), (32, "0.46"), (44, "0.66"), (56, "0.85"), (110, "1.7")]
)
def test_parameter_counts_of_he_et_al_table_6(depth, millions):
    decimals = len(millions.split(".")[1])
    residual = count(build(f"resnet{depth}", classes=10, seed=0))
    assert f"{residual / 1e6:.{decimals}f}" == millions
    assert count(build(f"plain{depth}", classes=10, seed=0)) == residual


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_the_depth_in_the_name_counts_convolutions_and_linear_layers(name):
    network = build(name, classes=10, seed=0)
    weighted = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and "downsample" not in name
    ]
    assert f"{len(weighted)}" == name.removeprefix("plain").removeprefix("resnet")


def test_cifar_style_keeps_the_resolution_until_the_second_stage():
    network = build("resnet20", classes=10, seed=0)
    shapes = []
    for stage in (network.layer1, network.layer2, network.layer3):
        stage.register_forward_hook(lambda module, inputs, out: shapes.append(tuple(out.shape)))
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert shapes == [(2, 16, 32, 32), (2, 32, 16, 16), (2, 64, 8, 8)]


def test_a_plain_network_has_no_skip_of_any_kind(images):
    plain = build("plain18", classes=5, shortcut="B", seed=0)
    assert not any("downsample" in name for name, _ in plain.named_modules())
    # With the branch's last normalization at zero, nothing passes a block that has no skip.
    block = plain.layer1[1]
    nn.init.zeros_(block.bn2.weight)
    assert block(torch.rand(2, 64, 8, 8)).abs().max() == 0


def test_a_residual_block_passes_its_input_when_its_branch_is_zero():
    block = build("resnet18", classes=5, seed=0).layer1[1]
    nn.init.zeros_(block.bn2.weight)
    x = torch.rand(2, 64, 8, 8)
    torch.testing.assert_close(block(x.clone()), x)


def test_option_a_subsamples_and_appends_channels_of_zeros():
    skip = build("resnet20", classes=10, seed=0).layer2[0].downsample
    x = torch.rand(2, 16, 5, 6)
    y = skip(x)
    assert y.shape == (2, 32, 3, 3)
    torch.testing.assert_close(y[:, :16], x[:, :, [0, 2, 4]][..., [0, 2, 4]])
    assert y[:, 16:].abs().max() == 0


def test_shortcut_options_can_be_exchanged(images):
    assert count(build("resnet34", classes=1000, shortcut="A", seed=0)) == 21_623_848
    projected = build("resnet20", classes=10, shortcut="B", seed=0)
    # two 1x1 projections, each with a normalization's weight and bias
    extra = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert count(projected) == count(build("resnet20", classes=10, seed=0)) + extra
    assert projected(images).shape == (4, 10)
