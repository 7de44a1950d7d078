"""Options and norms of the builder; initial weights: their distributions, and shared seeds."""

import math

import pytest
import torch
from scipy import stats
from torch import nn

from gradflow.errors import ConfigurationError
from gradflow.models import MODEL_NAMES, build


def test_every_depth_exists_plain_and_residual():
    depths = (18, 34, 20, 32, 44, 56, 110)
    assert sorted(MODEL_NAMES) == sorted(f"{f}{d}" for f in ("plain", "resnet") for d in depths)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "plian34"}, r"no network called 'plian34' \(did you mean plain34\?\)"),
        ({"name": "resnet50"}, "there are plain18, .*resnet110"),
        ({"norm": "layer"}, "no norm called 'layer'; there are batch, none, group"),
        ({"shortcut": "C"}, "no shortcut called 'C'; there are None, A, B"),
        ({"init": "xavier"}, "no init called 'xavier'"),
        ({"skip_scale": -1.0}, "must be 0 or a positive number, not -1.0"),
        ({"skip_scale": math.inf}, "must be 0 or a positive number, not inf"),
        ({"skip_scale": math.nan}, "must be 0 or a positive number, not nan"),
        ({"classes": 1}, "at least 2 classes, not 1"),
    ],
)
def test_an_impossible_choice_is_refused_in_one_sentence(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        build(**{"name": "plain20", "classes": 3, "seed": 0, **arguments})


@pytest.mark.parametrize("init", ["kaiming", "default"])
@pytest.mark.parametrize("norm", ["batch", "none", "group"])
@pytest.mark.parametrize("depth", [34, 20])
def test_networks_of_a_seed_are_identical_where_they_share_a_layer(depth, norm, init):
    def parameters(family, seed):
        network = build(f"{family}{depth}", classes=5, norm=norm, init=init, seed=seed)
        return dict(network.named_parameters())

    plain, residual, other = parameters("plain", 1), parameters("resnet", 1), parameters("plain", 2)

    assert plain.keys() <= residual.keys()
    assert all("downsample" in name for name in residual.keys() - plain.keys())
    assert all(torch.equal(plain[name], residual[name]) for name in plain)
    assert not torch.equal(plain["conv1.weight"], other["conv1.weight"])
    # layers of one shape must not share their draws
    assert not torch.equal(plain["layer1.0.conv1.weight"], plain["layer1.0.conv2.weight"])


@pytest.mark.parametrize("init", ["kaiming", "default"])
def test_the_global_random_state_is_neither_changed_nor_used(init):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = build("resnet20", classes=5, init=init, norm="none", seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    second = build("resnet20", classes=5, init=init, norm="none", seed=1).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_kaiming_weights_follow_the_normal_of_variance_two_over_fan_out():
    network = build("resnet34", classes=100, norm="none", seed=4)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * math.prod(module.kernel_size)
            sample = module.weight.detach().flatten()[:20_000].numpy()
            assert stats.kstest(sample, stats.norm(0, math.sqrt(2 / fan_out)).cdf).pvalue > 1e-4
            assert module.bias.abs().max() == 0
    fc = network.fc.weight.detach().flatten()[:20_000].numpy()
    assert stats.kstest(fc, stats.norm(0, 0.01).cdf).pvalue > 1e-4
    assert network.fc.bias.abs().max() == 0


def test_default_weights_and_biases_are_distributed_as_a_fresh_torch_modules():
    network = build("plain34", classes=100, norm="none", init="default", seed=4)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    torch.manual_seed(5)
    for layer in layers[:12] + layers[-3:]:
        if isinstance(layer, nn.Linear):
            fresh = nn.Linear(layer.in_features, layer.out_features)
        else:
            fresh = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size)
        for ours, theirs in zip(layer.parameters(), fresh.parameters(), strict=True):
            a, b = (x.detach().flatten()[:20_000].numpy() for x in (ours, theirs))
            assert stats.ks_2samp(a, b).pvalue > 1e-4
            assert abs(a).max() <= 1 / math.sqrt(layer.weight[0].numel())


@pytest.mark.parametrize("name", ["resnet18", "resnet20", "plain20"])
def test_normalizations_start_as_freshly_built_ones(name):
    for norm, kind in (("batch", nn.BatchNorm2d), ("group", nn.GroupNorm)):
        network = build(name, classes=5, norm=norm, seed=0)
        layers = [module for module in network.modules() if isinstance(module, kind)]
        assert layers
        for layer in layers:
            assert torch.equal(layer.weight, torch.ones_like(layer.weight))
            assert torch.equal(layer.bias, torch.zeros_like(layer.bias))
            if norm == "batch":
                assert torch.equal(layer.running_mean, torch.zeros_like(layer.running_mean))
                assert torch.equal(layer.running_var, torch.ones_like(layer.running_var))
                assert layer.num_batches_tracked == 0


def test_group_norm_has_32_groups_or_two_channels_a_group():
    for name in ("resnet20", "resnet18"):
        network = build(name, classes=5, norm="group", seed=0)
        groups = {
            m.num_channels: m.num_groups for m in network.modules() if hasattr(m, "num_groups")
        }
        expected = {16: 8, 32: 16, 64: 32, 128: 32, 256: 32, 512: 32}
        assert groups
        assert groups.items() <= expected.items()


def test_only_a_network_without_normalization_has_convolution_biases():
    for norm in ("batch", "none", "group"):
        network = build("resnet18", classes=5, norm=norm, seed=0)
        convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
        assert len(convolutions) == 20
        assert {m.bias is not None for m in convolutions} == {norm == "none"}


@pytest.mark.parametrize("name", ["plain20", "resnet20", "plain18", "resnet18"])
@pytest.mark.parametrize("norm", ["batch", "none", "group"])
def test_every_network_gives_every_parameter_a_gradient(name, norm):
    network = build(name, classes=3, norm=norm, seed=0)
    x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    nn.functional.cross_entropy(network(x), torch.tensor([0, 1, 2, 0])).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())
