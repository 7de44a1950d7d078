"""Additions in place onto a view, such as what instance norm returns."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow


class Block(nn.Module):
    def forward(self, x):
        return self.add(x, x)


class ResidualUnit(Block):
    """As in MONAI: convolution, instance norm and activation, twice; then the skip in place."""

    def __init__(self, width, dimensions=2):
        super().__init__()
        convolution = (nn.Conv2d, nn.Conv3d)[dimensions - 2]
        norm = (nn.InstanceNorm2d, nn.InstanceNorm3d)[dimensions - 2]
        self.conv1 = convolution(width, width, 3, padding=1)
        self.conv2 = convolution(width, width, 3, padding=1)
        self.norm1, self.norm2 = norm(width), norm(width)

    def add(self, skip, branch):
        out = F.leaky_relu(self.norm1(self.conv1(branch)))
        out = self.norm2(self.conv2(out))
        out += skip
        return F.leaky_relu(out)


class AffineUnit(ResidualUnit):
    """As in nnU-Net: instance norm with weights, and an activation in place."""

    def __init__(self, width, dimensions=2):
        super().__init__(width, dimensions)
        self.norm2 = type(self.norm2)(width, affine=True)

    def add(self, skip, branch):
        out = self.norm2(self.conv2(branch.sin()))
        out += skip
        return F.leaky_relu(out, inplace=True)


class Transposed(Block):
    """Onto a transposed view of what a linear layer returns."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(width, width)

    def add(self, skip, branch):
        out = self.layer(branch).sin().transpose(1, 2)
        out += skip.transpose(1, 2)
        return out.transpose(1, 2)


class Reshaped(Transposed):
    """Onto a reshaped view; the skip is multiplied."""

    def add(self, skip, branch):
        out = self.layer(branch).sin().view(len(branch), -1)
        out.add_(skip.view(len(skip), -1), alpha=0.5)
        return out.view_as(branch)


class Sliced(Transposed):
    """Onto the first half of the features, as in a skip with zeros appended."""

    def __init__(self, width):
        super().__init__(width)
        self.layer = nn.Linear(width, 2 * width)

    def add(self, skip, branch):
        out = self.layer(branch).sin()
        out[..., : skip.shape[-1]] += skip
        return out[..., 1 : 1 + skip.shape[-1]]


class OntoTheSkip(Transposed):
    """The branch is added onto a view of a copy of x."""

    def add(self, skip, branch):
        out = skip.clone().transpose(1, 2)
        out += self.layer(branch).sin().transpose(1, 2)
        return out.transpose(1, 2)


@pytest.mark.parametrize("unit", [ResidualUnit, AffineUnit])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_residual_units_with_instance_norm(check, images, unit, dimensions):
    torch.manual_seed(0)
    stem = (nn.Conv2d, nn.Conv3d)[dimensions - 2](2, 4, 1)
    model = nn.Sequential(stem, unit(4, dimensions), unit(4, dimensions))
    check(model, images(2, 2, *[5] * dimensions), {"1": "1", "2": "2"}, "identity")


@pytest.mark.parametrize("block", [Transposed, Reshaped, Sliced, OntoTheSkip])
def test_other_views(check, images, block):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), block(6), block(6))
    check(model, images(2, 4, 3), {"1": "1", "2": "2"}, "identity")


def said(model, folder, x, loss=lambda y: y.square().sum(), steps=2):
    with gradflow.Tracer(model, folder) as tracer:
        for _ in range(steps):
            loss(model(x)).backward()
            tracer.step()
    run = gradflow.open_run(folder)
    return run.junctions, json.loads((folder / "run.json").read_text())["residual_additions"]


def test_all_of_eighteen_additions_are_found_where_eight_are_on_no_view(tmp_path, images):
    class Plain(Block):
        def __init__(self, width):
            super().__init__()
            self.conv = nn.Conv2d(width, width, 3, padding=1)

        def add(self, skip, branch):
            return skip + self.conv(branch).relu()

    torch.manual_seed(0)
    blocks = [Plain(2) for _ in range(8)] + [ResidualUnit(2) for _ in range(10)]
    model = nn.Sequential(nn.Conv2d(2, 2, 1), *blocks).double()
    rows, entry = said(model, tmp_path / "run", images(2, 2, 4, 4))
    assert entry["sentence"] == "18 found"
    assert list(rows.layer) == [str(place) for place in range(1, 19)] * 2


class Excited(ResidualUnit):
    """A gate multiplies the view in place before the skip is added to it (Hu et al. 2018)."""

    def __init__(self, width):
        super().__init__(width)
        self.gate = nn.Conv2d(width, width, 1)

    def add(self, skip, branch):
        out = self.norm2(self.conv2(self.conv1(branch).relu()))
        out *= self.gate(out.mean((2, 3), keepdim=True)).sigmoid()
        out += skip
        return out.relu()


def test_a_product_in_place_is_no_addition_and_leaves_the_name_to_one(check, images):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 1), Excited(4), Excited(4))
    check(model, images(2, 2, 5, 5), {"1": "1", "2": "2"}, "identity")


class Modulated(Excited):
    """What is added on no view is multiplied in place by a function of x (Perez et al. 2018)."""

    def forward(self, x):
        return self.modulated(x, x, x)

    def modulated(self, skip, branch, other):
        out = (skip + self.conv1(branch).sin()).flatten(2)
        out *= self.gate(other.mean((2, 3), keepdim=True)).flatten(2).sigmoid()
        return out.view_as(other)


def test_a_product_in_place_after_an_addition_leaves_it_its_row(tmp_path, images):
    torch.manual_seed(0)
    stem, block = nn.Conv2d(2, 4, 1).double(), Modulated(4).double()
    x = images(2, 2, 5, 5)
    copies = [stem(x).detach().clone().requires_grad_() for _ in range(3)]
    block.modulated(*(one * 1 for one in copies)).square().sum().backward()
    skip, branch, other = (one.grad for one in copies)
    rows, _ = said(nn.Sequential(stem, block), tmp_path / "run", x)
    assert list(rows.layer) == ["1", "1"]
    for row in rows.itertuples():
        assert row.skip_gradient_norm == pytest.approx(float(skip.norm()), rel=1e-10)
        assert row.branch_gradient_norm == pytest.approx(float(branch.norm()), rel=1e-10)
        assert row.gradient_norm == pytest.approx(float((skip + branch).norm()), rel=1e-10)
        whole = float((skip + branch + other).norm())
        assert row.input_gradient_norm == pytest.approx(whole, rel=1e-10)
        assert row.residual_error < 1e-12


class Rewriting(nn.Module):
    """Replaces some features by a function of them."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        out = x.clone().view(-1, 2, 3)
        out[:, 0] = self.layer(out[:, 0].clone()).tanh()
        return out.view_as(x)


class Replacing(Rewriting):
    def forward(self, x):
        out = x.clone().view(-1, 2, 3)
        out.copy_(self.layer(out.clone()).tanh())
        return out.view_as(x)


@pytest.mark.parametrize("block", [Rewriting, Replacing])
def test_values_copied_into_a_view_are_no_addition(tmp_path, images, block):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), block(), block()).double()
    rows, entry = said(model, tmp_path / "run", images(5, 3))
    assert rows.empty
    assert entry["found"] == 0


def test_a_gradient_that_tells_nothing_makes_no_row(tmp_path, images):
    # A gradient of zero is the same whether the operation adds or copies.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 1), ResidualUnit(4)).double()
    x = images(2, 2, 5, 5)
    rows, entry = said(model, tmp_path / "zero", x, lambda y: (0 * y).sum())
    assert rows.empty
    assert entry["found"] == 0
    rows, entry = said(model, tmp_path / "infinite", x, lambda y: (y / 0).sum())
    assert rows.empty


def test_accumulated_passes_add_up_where_the_first_pass_tells_what_is_added(tmp_path, images):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 1), ResidualUnit(4), ResidualUnit(4)).double()
    x = images(4, 2, 5, 5)
    whole, _ = said(model, tmp_path / "whole", x, steps=1)
    with gradflow.Tracer(model, tmp_path / "parts") as tracer:
        for part in (x[:2], x[2:]):
            model(part).square().sum().backward()
        tracer.step()
    parts = gradflow.open_run(tmp_path / "parts").junctions
    assert list(parts.layer) == list(whole.layer) == ["1", "2"]
    for name in ("gradient_norm", "skip_share", "branch_gradient_norm"):
        assert list(parts[name]) == pytest.approx(list(whole[name]), rel=1e-10)


class AddsInPlace(nn.Module):
    """The first sum of a block is made in place on an output, and is the skip of the second."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 6)

    def forward(self, x):
        h = self.first(x)
        h += x
        return self.second(self.norm(h)) + h


def test_a_skip_that_is_a_sum_made_in_place_has_its_variance_in_every_step(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), AddsInPlace(), AddsInPlace(), nn.Linear(6, 2))
    sums = []
    model[2].norm.register_forward_pre_hook(lambda _, given: sums.append(given[0].detach().clone()))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for _ in range(8):
            model(torch.randn(16, 4)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    rows = gradflow.open_run(tmp_path / "run").junctions
    last = rows[rows["layer"] == "2+2"].sort_values("step")
    assert last["step"].tolist() == list(range(8))
    expected = [one.double().var(0, unbiased=False).mean().item() for one in sums]
    assert last["skip_variance"].tolist() == pytest.approx(expected, rel=1e-6)
