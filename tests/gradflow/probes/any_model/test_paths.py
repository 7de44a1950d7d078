"""The gradient by path length in models of others, against all 2^n paths one by one."""

import copy
import itertools

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

import gradflow

TARGETS = torch.tensor([0, 1, 2])


def split(value, taken):
    """`value`, whose gradient goes on only if the path takes this summand."""
    return value if taken else value.detach()


def resnet_along(model, images, choices):
    """The start and the loss, with a gradient along one path alone."""
    x = model.maxpool(model.relu(model.bn1(model.conv1(images)))).detach().requires_grad_()
    start = x
    blocks = [*model.layer1, *model.layer2, *model.layer3, *model.layer4]
    for block, takes_branch in zip(blocks, choices, strict=True):
        skip = x if block.downsample is None else block.downsample(x)
        branch = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))
        x = F.relu(split(skip, not takes_branch) + split(branch, takes_branch))
    logits = model.fc(torch.flatten(model.avgpool(x), 1))
    return start, F.cross_entropy(logits, TARGETS)


def encoder_along(model, tokens, choices):
    x = model[0](tokens).detach().requires_grad_()
    start, choices = x, iter(choices)
    for layer in model[1].layers:
        for norm, branch in (
            (layer.norm1, lambda x, layer=layer: layer.self_attn(x, x, x, need_weights=False)[0]),
            (layer.norm2, lambda x, layer=layer: layer.linear2(F.relu(layer.linear1(x)))),
        ):
            takes_branch = next(choices)
            if layer.norm_first:
                x = split(x, not takes_branch) + split(branch(norm(x)), takes_branch)
            else:
                x = norm(split(x, not takes_branch) + split(branch(x), takes_branch))
    return start, F.cross_entropy(model[2](x), TARGETS)


ALONG = {"resnet": resnet_along, "pre-norm": encoder_along, "post-norm": encoder_along}


@pytest.mark.parametrize("name", ALONG)
def test_gradient_of_each_length_is_the_sum_over_its_paths(name, models):
    (model, inputs), along = models[name](), ALONG[name]
    found = gradflow.probes.paths(model, inputs, TARGETS)
    model.eval()
    n = len(found) - 1
    assert n == 4
    expected = [0.0] * (n + 1)
    for choices in itertools.product((False, True), repeat=n):
        start, loss = along(model, inputs, choices)
        expected[sum(choices)] += torch.autograd.grad(loss, start)[0]
    whole = sum(expected)
    shares = [float((part * whole).sum() / whole.square().sum()) for part in expected]
    assert found.share.tolist() == pytest.approx(shares, abs=1e-12)
    assert found.gradient_norm.tolist() == pytest.approx([float(g.norm()) for g in expected])
    assert found.paths.tolist() == [1, 4, 6, 4, 1]
    assert found.share.sum() == pytest.approx(1)


class Scaled(nn.Module):
    """y = x + a W x with W the identity: a linear branch of gain a."""

    def __init__(self, gain):
        super().__init__()
        self.gain, self.linear = gain, nn.Linear(4, 4, bias=False)
        nn.init.eye_(self.linear.weight)

    def forward(self, x):
        return x + self.gain * self.linear(x)


def test_linear_branches_give_the_binomial_distribution():
    gain, n = 0.26, 54
    model = nn.Sequential(*[Scaled(gain) for _ in range(n)]).double()
    found = gradflow.probes.paths(
        model, torch.randn(2, 4, dtype=torch.float64), None, lambda output, _: output.square().sum()
    )
    expected = stats.binom.pmf(range(n + 1), n, gain / (1 + gain))
    assert found.share.tolist() == pytest.approx(expected.tolist(), abs=1e-12)
    assert found.share[5:18].sum() == pytest.approx(0.97, abs=0.005)  # Veit et al. 2016


class Nested(nn.Module):
    """y = x + f(x + g(x)): a path may take the branch of the outer addition and skip the inner."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return x + self.outer(torch.tanh(x + self.inner(x)))


def test_branch_within_a_branch_counts_twice():
    torch.manual_seed(0)
    model = Nested().double()
    x = torch.randn(2, 4, dtype=torch.float64)
    found = gradflow.probes.paths(model, x, None, lambda output, _: output.sum())
    with torch.no_grad():
        slope = 1 - torch.tanh(x + model.inner(x)).square()
        through = torch.ones(2, 4, dtype=torch.float64) @ model.outer.weight * slope
        expected = [torch.ones_like(x), through, through @ model.inner.weight]
    assert found.gradient_norm.tolist() == pytest.approx([float(g.norm()) for g in expected])


class Sum(nn.Module):
    """A sum of two blocks side by side: one alone lies after the first addition's input."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Scaled(0.5), Scaled(0.5)

    def forward(self, x, other):
        return torch.cat([self.first(x), self.second(other)])


def test_additions_beside_the_path_are_left_out():
    found = gradflow.probes.paths(
        Sum(), (torch.ones(1, 4), torch.ones(1, 4)), None, lambda output, _: output.sum()
    )
    assert found.share.tolist() == pytest.approx([2 / 3, 1 / 3])


def test_model_and_inputs_stay_as_they_are(models):
    model, images = models["resnet"]()
    model.conv1.weight.requires_grad_(False)
    model.layer1.eval()
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    state, given = copy.deepcopy(model.state_dict()), images.clone()
    modes = [module.training for module in model.modules()]
    hooks = []
    model.layer2.register_forward_hook(lambda *_: hooks.append(1))
    gradflow.probes.paths(model, images, TARGETS)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert torch.equal(images, given)
    assert not images.requires_grad
    assert not model.conv1.weight.requires_grad
    assert model.conv1.weight.grad is None
    assert torch.equal(model.fc.weight.grad, torch.ones_like(model.fc.weight))
    assert [module.training for module in model.modules()] == modes
    assert hooks == [1]
    assert len(model.layer2._forward_hooks) == 1
    assert not model.layer1[0]._forward_pre_hooks


def test_model_without_residual_addition_is_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(gradflow.probes.NotMeasurableError, match="no residual addition was found"):
        gradflow.probes.paths(model, torch.ones(2, 4), torch.tensor([0, 1]))
