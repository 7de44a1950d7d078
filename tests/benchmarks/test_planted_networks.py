"""The networks that faults are planted in have the gradients that they are said to have."""

import importlib.util
import random
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def planted():
    """The modules of the benchmark, which find each other as scripts in one folder do."""
    names = ("planted_networks", "planted_ill", "planted_healthy")
    loaded = {}
    for name in names:
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        loaded[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded[name])
    yield loaded
    for name in names:
        del sys.modules[name]


def factor_over_depth(model, inputs):
    """Gradient norm at the first linear layer's output over that at the last hidden one's."""
    outputs = []
    handles = [
        layer.register_forward_hook(lambda *args: outputs.append(args[2]))
        for layer in model
        if isinstance(layer, nn.Linear)
    ]
    loss = F.cross_entropy(model(inputs), torch.zeros(len(inputs), dtype=torch.long))
    first, last = torch.autograd.grad(loss, [outputs[0], outputs[-2]])
    for handle in handles:
        handle.remove()
    return float(first.norm() / last.norm())


@pytest.mark.parametrize("factor", [0.2, 0.5, 1.0, 2.0, 3.0])
def test_scaled_weights_multiply_the_gradient_by_their_factor(planted, factor):
    networks = planted["planted_networks"]
    torch.manual_seed(0)
    prepare = partial(networks.scaled, gain=2 * factor**2)
    model = networks.mlp([96] * 6, prepare, nn.ReLU)
    ratio = factor_over_depth(model, torch.randn(64, networks.INPUTS))
    assert ratio == pytest.approx(factor**5, rel=0.6)


@pytest.mark.parametrize("factor", [0.1, 0.25, 0.5, 2.0, 4.0])
def test_depths_take_the_factor_beyond_the_bound_of_the_ill(planted, factor):
    networks = planted["planted_networks"]
    for seed in range(8):
        depth = networks.depth_for(factor, random.Random(seed))
        reached = factor**depth
        assert min(reached, 1 / reached) <= networks.FIXED


def test_a_planted_dead_layer_gives_zero_for_every_input(planted):
    for seed in range(4):
        torch.manual_seed(seed)
        case = planted["planted_ill"].dead(random.Random(seed), images=False)
        x, least_alive = torch.randn(256, planted["planted_networks"].INPUTS), 1.0
        for layer in case.model[:-1]:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                least_alive = min(least_alive, float((x > 0).any(0).float().mean()))
        assert least_alive <= 0.1


@pytest.mark.parametrize("backward", [False, True])
def test_a_value_is_spoilt_from_its_step_on(planted, backward):
    torch.manual_seed(0)
    case = planted["planted_ill"].nonfinite(random.Random(0), backward=backward)
    layer, step, direction = case.place
    assert direction == ("backward" if backward else "forward")
    for now, finite in ((step - 1, True), (step, False)):
        case.at_step(now)
        kept = []
        handle = case.model[int(layer)].register_forward_hook(lambda *args, k=kept: k.append(args))
        loss = case.model(torch.randn(4, planted["planted_networks"].INPUTS)).sum()
        handle.remove()
        seen = torch.autograd.grad(loss, kept[0][2])[0] if backward else kept[0][2]
        assert bool(seen.isfinite().all()) is finite


def test_zero_gamma_closes_every_branch(planted):
    torch.manual_seed(0)
    networks = planted["planted_networks"]
    model = networks.residual_net(3, 32, zero_gamma=True)
    x = torch.randn(8, 32)
    for block in model:
        if isinstance(block, networks.Residual):
            assert torch.equal(block(x), x)
