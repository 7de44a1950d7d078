import pytest
import torch
from captum.attr import LayerConductance
from torch import nn
from torchvision.models import resnet18

from gradflow.models import build
from gradflow.probes.attribution.conductance import (
    MAX_POINTS_PER_PASS,
    conductances,
    relative_error,
)
from gradflow.probes.network.blocks import find_blocks, rewired


class Together(nn.Module):
    """The addition as a module, whose two inputs captum can look at."""

    def forward(self, skip, branch):
        return skip + branch


@pytest.fixture(scope="module")
def network():
    return build("resnet20", classes=3, seed=0).double().eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.manual_seed(0))


def baseline_of(images):
    return torch.full_like(images, -1.5)


def size(one):
    """The scale for errors, as skip and branch may nearly cancel in their sum."""
    return one.skip.abs() + one.branch.abs()


def summed_by_hand(network, block, image, baseline, target, steps):
    """Midpoint sums with dh/da by a central difference; our code takes differences over steps."""

    def at(along):
        kept = {}

        def keep(block, x):
            kept["skip"], kept["branch"] = block.skip(x), block.branch(x)
            kept["sum"] = kept["skip"] + kept["branch"]
            return block.rectify(kept["sum"])

        with rewired({block: keep}):
            logits = network(baseline + along.view(-1, 1, 1, 1) * (image - baseline))
        return logits[:, target].sum(), kept

    along = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    logit, kept = at(along)
    slope = torch.autograd.grad(logit, kept["sum"])[0]
    with torch.no_grad():
        before, after = at(along - 1e-7)[1], at(along + 1e-7)[1]
    return [
        float((slope * (after[way] - before[way]) / 2e-7).sum()) / steps
        for way in ("skip", "branch")
    ]


def test_conductances_are_the_integrals_of_their_definition(network, images):
    targets = torch.tensor([1, 2])
    found = conductances(network, images, baseline_of(images), targets, 400)
    chosen = [block for block in find_blocks(network) if block.name in ("layer1.1", "layer3.0")]
    for block in chosen:
        ours = next(one for one in found if one.block == block.name)
        wanted = summed_by_hand(network, block, images[0], baseline_of(images)[0], 1, 400)
        tolerance = 0.01 * float(size(ours)[0])
        assert float(ours.skip[0]) == pytest.approx(wanted[0], abs=tolerance)
        assert float(ours.branch[0]) == pytest.approx(wanted[1], abs=tolerance)


def test_conductances_of_one_block_equal_captums_with_many_steps(network, images):
    targets = torch.tensor([1, 2])
    block = find_blocks(network)[4]
    together = Together()
    block.module.add_module("together", together)

    def through(block, x):
        # A clone, because an identity skip is also the branch's input.
        return block.rectify(together(block.skip(x).clone(), block.branch(x)))

    with rewired({block: through}):
        skip, branch = LayerConductance(network, together).attribute(
            images.clone().requires_grad_(),
            baseline_of(images),
            target=targets,
            n_steps=300,
            method="riemann_trapezoid",
            attribute_to_layer_input=True,
        )
    del block.module.together
    ours = conductances(network, images, baseline_of(images), targets, 64)[4]
    for mine, theirs in ((ours.skip, skip), (ours.branch, branch)):
        error = (mine - theirs.detach().flatten(1).sum(1)).abs() / size(ours)
        assert float(error.max()) < 0.03  # captum takes the gradient at one end of each step


def test_skip_and_branch_of_every_block_add_up_to_the_difference_of_logits(network, images):
    targets = torch.tensor([0, 2])
    with torch.no_grad():
        change = network(images) - network(baseline_of(images))
    for one in conductances(network, images, baseline_of(images), targets, 128):
        assert torch.allclose(one.difference, change.gather(1, targets[:, None])[:, 0])
        assert float(((one.skip + one.branch - one.difference).abs() / size(one)).max()) < 0.01


def test_the_completeness_error_vanishes_with_more_steps(network, images):
    # Relative to the difference, which is much smaller than skip and branch of the first blocks.
    targets = torch.tensor([0, 2])
    few, many = (
        torch.tensor(
            [
                list(relative_error(one.skip + one.branch, one.difference))
                for one in conductances(network, images, baseline_of(images), targets, steps)
            ]
        )
        for steps in (32, 512)
    )
    assert float(many.mean()) < float(few.mean()) / 4
    assert float(many.max()) < 0.02


class Scaled(nn.Module):
    """A scalar residual chain, positive throughout: relu(branch(x) + x), branch(x) = a x."""

    def __init__(self, gain):
        super().__init__()
        self.body = build("resnet20", classes=2, norm="none", seed=0).layer1[0].double()
        with torch.no_grad():
            for parameter in self.body.parameters():
                parameter.zero_()
            for channel in range(16):
                self.body.conv1.weight[channel, channel, 1, 1] = 1
                self.body.conv2.weight[channel, channel, 1, 1] = gain

    def forward(self, x):
        y = self.body(x[:, :1].expand(-1, 16, -1, -1))
        return y.mean((2, 3))[:, :2]


def test_in_a_scalar_chain_branch_over_skip_is_the_gain():
    images = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    (one,) = conductances(Scaled(0.25), images, images / 2, torch.tensor([0, 1]), 1)
    means = images[:, 0].mean((1, 2)) / 2
    assert torch.allclose(one.skip, means, rtol=1e-12)
    assert torch.allclose(one.branch, 0.25 * means, rtol=1e-12)
    assert torch.allclose(one.difference, 1.25 * means, rtol=1e-12)


def test_conductances_do_not_depend_on_the_images_per_pass(network, images):
    many = images.repeat(3, 1, 1, 1)
    targets = torch.zeros(6, dtype=torch.int64)
    steps = MAX_POINTS_PER_PASS // 4 - 1  # four images at once
    whole = conductances(network, many, baseline_of(many), targets, steps)
    single = conductances(network, many[5:], baseline_of(many[5:]), targets[5:], steps)
    for one, alone in zip(whole, single, strict=True):
        assert torch.allclose(one.skip[5], alone.skip[0])
        assert torch.allclose(one.branch[5], alone.branch[0])


def test_torchvisions_networks_have_conductances_and_plain_ones_none(images):
    torch.manual_seed(0)
    network = resnet18(num_classes=3).double().eval()
    found = conductances(network, images, baseline_of(images), torch.tensor([0, 1]), 64)
    assert [one.block for one in found] == [block.name for block in find_blocks(network)]
    for one in found:
        assert max(relative_error(one.skip + one.branch, one.difference)) < 0.1
    plain = build("plain20", classes=3, seed=0).double().eval()
    assert conductances(plain, images, baseline_of(images), torch.tensor([0, 1]), 4) == []


def test_relative_error_is_of_the_difference():
    error = relative_error(torch.tensor([1.1, -3.0]), torch.tensor([1.0, -2.0]))
    assert list(error) == pytest.approx([0.1, 0.5])
