"""Deleted branches and scaled skips in models of others, against their forward written by hand."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import gradflow

TARGETS = torch.tensor([0, 1, 2])


def resnet_by_hand(model, images, skips, branches):
    """The start and the logits with the skip and branch of each block times a factor."""
    start = model.maxpool(model.relu(model.bn1(model.conv1(images))))
    x = start
    blocks = [*model.layer1, *model.layer2, *model.layer3, *model.layer4]
    for block, by_skip, by_branch in zip(blocks, skips, branches, strict=True):
        skip = x if block.downsample is None else block.downsample(x)
        branch = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))
        x = F.relu(by_skip * skip + by_branch * branch)
    return start, model.fc(torch.flatten(model.avgpool(x), 1))


def encoder_by_hand(model, tokens, skips, branches):
    start = model[0](tokens)
    x, factors = start, iter(zip(skips, branches, strict=True))
    for layer in model[1].layers:
        by_skip, by_branch = next(factors)
        read = layer.norm1(x)
        attention = layer.self_attn(read, read, read, need_weights=False)[0]
        x = by_skip * x + by_branch * attention
        by_skip, by_branch = next(factors)
        x = by_skip * x + by_branch * layer.linear2(F.relu(layer.linear1(layer.norm2(x))))
    return start, model[2](x)


BY_HAND = {"resnet": resnet_by_hand, "pre-norm": encoder_by_hand}
LAYERS = {
    "resnet": ["layer1.0", "layer2.0", "layer3.0", "layer4.0"],
    "pre-norm": [
        "1.layers.0",
        "1.layers.0+2",
        "1.layers.1",
        "1.layers.1+2",
    ],
}


@pytest.mark.parametrize("name", BY_HAND)
def test_each_lesion_leaves_out_one_branch(name, models):
    (model, inputs), by_hand = models[name](), BY_HAND[name]
    found = gradflow.probes.lesions(model, inputs, TARGETS)
    model.eval()
    with torch.no_grad():
        intact = float(F.cross_entropy(by_hand(model, inputs, [1] * 4, [1] * 4)[1], TARGETS))
        expected = [
            float(
                F.cross_entropy(
                    by_hand(model, inputs, [1] * 4, [place != k for place in range(4)])[1], TARGETS
                )
            )
            for k in range(4)
        ]
    assert found.layer.tolist() == LAYERS[name]
    assert found.intact.tolist() == pytest.approx([intact] * 4)
    assert found.lesioned.tolist() == pytest.approx(expected)
    assert found.change.tolist() == pytest.approx([one - intact for one in expected])
    assert found.change.abs().min() > 1e-4


@pytest.mark.parametrize("name", BY_HAND)
def test_scaled_skips_give_loss_and_gradient(name, models):
    (model, inputs), by_hand = models[name](), BY_HAND[name]
    found = gradflow.probes.scaled_skips(model, inputs, TARGETS, scales=(0, 0.5, 1))
    model.eval()
    for row, scale in zip(found.itertuples(), (0, 0.5, 1), strict=True):
        start, logits = by_hand(model, inputs, [scale] * 4, [1] * 4)
        loss = F.cross_entropy(logits, TARGETS)
        (gradient,) = torch.autograd.grad(loss, start)
        assert row.scale == scale
        assert row.loss == pytest.approx(loss.item())
        assert row.gradient_norm == pytest.approx(float(gradient.norm()))
    assert found.loss.nunique() == 3


def test_statistics_are_re_estimated_for_each_scale_and_put_back(models):
    model, images = models["resnet"]()
    state = copy.deepcopy(model.state_dict())
    found = gradflow.probes.scaled_skips(model, images, TARGETS, scales=(0, 1), batches=[images])
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for row, scale in zip(found.itertuples(), (0, 1), strict=True):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average
        with torch.no_grad():
            resnet_by_hand(model.train(), images, [scale] * 4, [1] * 4)
            _, logits = resnet_by_hand(model.eval(), images, [scale] * 4, [1] * 4)
        assert row.loss == pytest.approx(F.cross_entropy(logits, TARGETS).item(), rel=1e-9)


class SeveralInputs(nn.Module):
    """A model of which only the first input counts."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, **others):
        return self.model(x)


@pytest.mark.parametrize("count", range(1, 7))
def test_several_inputs_and_batches_scale_as_one_does(models, count):
    model, images = models["resnet"]()
    found = gradflow.probes.scaled_skips(model, images, TARGETS, scales=(1,), batches=[images])
    several = dict.fromkeys("xabcdef"[:count], images)
    scaled = gradflow.probes.scaled_skips(
        SeveralInputs(model), several, TARGETS, scales=(1,), batches=[several]
    )
    assert scaled.loss.tolist() == found.loss.tolist()
    assert scaled.gradient_norm.tolist() == found.gradient_norm.tolist()


def test_no_grad_around_a_probe_changes_nothing(models):
    model, images = models["resnet"]()
    for probe in (gradflow.probes.paths, gradflow.probes.scaled_skips):
        expected = probe(model, images, TARGETS)
        with torch.no_grad():
            assert probe(model, images, TARGETS).equals(expected)


def test_the_gradient_of_a_checkpointed_model_is_missing_and_its_loss_is_right(models):
    class Checkpointed(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return checkpoint(self.model, x, use_reentrant=False)

    model, images = models["resnet"]()
    images.requires_grad_()
    expected = gradflow.probes.scaled_skips(model, images, TARGETS, scales=(0.5,))
    found = gradflow.probes.scaled_skips(Checkpointed(model), images, TARGETS, scales=(0.5,))
    assert found.loss.tolist() == expected.loss.tolist()
    assert found.gradient_norm.isna().all()


class Hidden(nn.Module):
    """Adds skip and branch by torch.add with a factor: no operand is the branch as it is added."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return torch.add(torch.tanh(self.linear(x)), x, alpha=0.5)


class InPlace(nn.Module):
    """Adds one summand in place onto the other, and does not use what the call returns."""

    def __init__(self, onto_branch=False):
        super().__init__()
        self.linear, self.onto_branch = nn.Linear(4, 4), onto_branch

    def forward(self, x):
        x = x * 2
        branch = self.linear(x)
        if self.onto_branch:
            branch.add_(x)
            return branch
        x.add_(branch)
        return x


@pytest.mark.parametrize("onto_branch", [False, True])
def test_sum_in_place_is_lesioned(onto_branch):
    torch.manual_seed(0)
    model, x = InPlace(onto_branch), torch.randn(3, 4)
    found = gradflow.probes.lesions(model, x, None, lambda output, _: output.sum())
    assert found.lesioned.item() == pytest.approx(float(2 * x.sum()))


def test_what_cannot_be_told_apart_is_missing_or_refused():
    model = nn.Sequential(Hidden(), InPlace())
    arguments = (model, torch.ones(2, 4), None, lambda output, _: output.sum())
    found = gradflow.probes.lesions(*arguments)
    assert found.layer.tolist() == ["0", "1"]
    assert [math.isnan(one) for one in found.change] == [True, False]
    with pytest.raises(gradflow.probes.NotMeasurableError, match="in 0, so this skip cannot"):
        gradflow.probes.scaled_skips(*arguments)


def test_accuracy_is_a_measure(models):
    model, images = models["resnet"]()
    found = gradflow.probes.lesions(
        model, images, TARGETS, lambda output, targets: (output.argmax(1) == targets).float().mean()
    )
    model.eval()
    right = (model(images).argmax(1) == TARGETS).sum().item()
    assert found.intact.tolist() == pytest.approx([right / 3] * 4)
