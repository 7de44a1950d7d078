"""A scale on the skips: from the plain network at 0 to the residual one at 1."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradflow.models import build

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def gradients(network):
    F.cross_entropy(network(IMAGES), torch.tensor([0, 1, 2, 0])).backward()
    return {name: parameter.grad for name, parameter in network.named_parameters()}


@pytest.mark.parametrize("name", ["34", "20"])
@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("training", [True, False])
def test_scale_zero_computes_what_the_plain_network_of_the_same_seed_does(name, norm, training):
    plain = build(f"plain{name}", classes=3, norm=norm, seed=5).train(training)
    zero = build(f"resnet{name}", classes=3, norm=norm, skip_scale=0, seed=5).train(training)
    assert torch.equal(zero(IMAGES), plain(IMAGES))
    whole = build(f"resnet{name}", classes=3, norm=norm, seed=5).train(training)
    assert not torch.allclose(whole(IMAGES), plain(IMAGES))


def test_scale_zero_has_the_plain_networks_gradients_and_none_on_its_skips():
    wanted = gradients(build("plain18", classes=3, seed=5))
    found = gradients(build("resnet18", classes=3, skip_scale=0, seed=5))
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient)
    others = [found[name] for name in found.keys() - wanted.keys()]
    assert len(others) == 9
    assert not any(gradient.any() for gradient in others)


def test_scale_one_gives_the_network_without_a_scale():
    network = build("resnet20", classes=3, skip_scale=1.0, seed=5)
    assert torch.equal(network(IMAGES), build("resnet20", classes=3, seed=5)(IMAGES))
    block, x = network.layer1[1], torch.rand(2, 16, 8, 8)
    assert block.skip(x) is x


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_every_skip_is_scaled_and_the_weights_are_those_without(shortcut):
    scaled = build("resnet20", classes=3, shortcut=shortcut, skip_scale=0.5, seed=5)
    whole = build("resnet20", classes=3, shortcut=shortcut, seed=5)
    assert list(scaled.state_dict()) == list(whole.state_dict())
    assert all(map(torch.equal, scaled.parameters(), whole.parameters()))
    blocks = [name for name, module in whole.named_modules() if hasattr(module, "downsample")]
    assert len(blocks) == 9
    for name in blocks:
        half, full = scaled.get_submodule(name), whole.get_submodule(name)
        # With the branch at zero the block computes its skip.
        nn.init.zeros_(half.bn2.weight)
        nn.init.zeros_(full.bn2.weight)
        x = torch.rand(2, full.conv1.in_channels, 8, 8)
        torch.testing.assert_close(half(x.clone()), 0.5 * full(x.clone()))


def test_plain_networks_ignore_the_scale():
    plain = build("plain20", classes=3, skip_scale=0.5, seed=5)
    assert torch.equal(plain(IMAGES), build("plain20", classes=3, seed=5)(IMAGES))
