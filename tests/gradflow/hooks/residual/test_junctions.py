"""Skip and branch gradients against autograd on two copies of the block's input."""

import math

import pytest
import torch
from torch import nn

import gradflow
from gradflow.hooks.residual.junctions import gradient_products


class Residual(nn.Module):
    """relu(skip(x) + branch(x)), in place or not."""

    def __init__(self, branch, skip=None, *, in_place=True, activation=True):
        super().__init__()
        self.branch, self.skip, self.in_place = branch, skip, in_place
        self.activation = nn.ReLU(inplace=in_place) if activation else None

    def forward(self, x, fork=None):
        given = x if fork is None else fork
        out = self.branch(x)
        identity = given if self.skip is None else self.skip(given)
        if self.in_place:
            out += identity
        else:
            out = identity + out
        return out if self.activation is None else self.activation(out)


def branch(inputs, outputs):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
    )


def network(*, in_place):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        Residual(branch(4, 4), in_place=in_place),
        Residual(branch(4, 6), nn.Conv2d(4, 6, 1), in_place=in_place),
        nn.Flatten(),
        nn.Linear(6 * 25, 5),
    ).double()


def trace(model, folder, *inputs):
    with gradflow.Tracer(model, folder) as tracer:
        for x in inputs:
            model(x).square().sum().backward()
        tracer.step()
    return gradflow.open_run(folder)


@pytest.mark.parametrize("in_place", [True, False])
def test_both_parts_equal_the_gradients_on_a_forked_input(tmp_path, in_place):
    torch.manual_seed(0)
    model = network(in_place=in_place)
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    junctions = trace(model, tmp_path / "run", x).junctions.set_index("layer")
    assert list(junctions.index) == ["1", "2"]
    assert list(junctions.skip_type) == ["identity", "projection"]

    for index in (1, 2):
        entering = model[:index](x).detach()
        through_branch = entering.clone().requires_grad_()
        through_skip = entering.clone().requires_grad_()
        output = model[index](through_branch * 1, through_skip * 1)
        model[index + 1 :](output).square().sum().backward()
        skip, part = through_skip.grad, through_branch.grad
        total = skip + part
        expected = {
            "gradient_norm": total.norm(),
            "skip_gradient_norm": skip.norm(),
            "branch_gradient_norm": part.norm(),
            "skip_branch_cosine": (skip * part).sum() / (skip.norm() * part.norm()),
            "skip_share": (skip * total).sum() / total.square().sum(),
        }
        for name, value in expected.items():
            assert junctions.loc[str(index), name] == pytest.approx(float(value), rel=1e-9), name


def test_forward_variances_are_those_of_the_summands(tmp_path):
    torch.manual_seed(1)
    model = network(in_place=True)
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    junctions = trace(model, tmp_path / "run", x).junctions.set_index("layer")

    def variance(y):
        return float(y.detach().var((0, 2, 3), correction=0).mean())

    entering = model[:1](x)
    assert junctions.loc["1", "skip_variance"] == pytest.approx(variance(entering))
    assert junctions.loc["1", "branch_variance"] == pytest.approx(
        variance(model[1].branch(entering))
    )
    entering = model[:2](x)
    assert junctions.loc["2", "skip_variance"] == pytest.approx(variance(model[2].skip(entering)))
    assert junctions.loc["2", "branch_variance"] == pytest.approx(
        variance(model[2].branch(entering))
    )


def test_scalar_residual_chain_splits_one_to_a(tmp_path):
    # x + a x, L times: the input's gradient is (1 + a)^L, skip and branch stand 1 : a.
    a, length = 0.26, 5
    blocks = [Residual(nn.Linear(1, 1, bias=False), activation=False) for _ in range(length)]
    model = nn.Sequential(nn.Linear(1, 1, bias=False), *blocks).double()
    for block in blocks:
        nn.init.constant_(block.branch.weight, a)
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(torch.ones(1, 1, dtype=torch.float64)).sum().backward()
        tracer.step()
    junctions = gradflow.open_run(tmp_path / "run").junctions
    assert len(junctions) == length
    assert list(junctions.skip_share) == pytest.approx([1 / (1 + a)] * length, rel=1e-10)
    assert list(junctions.gradient_norm) == pytest.approx(
        [(1 + a) ** (length - index) for index in range(length)], rel=1e-10
    )


def test_a_block_around_blocks_claims_no_junction_of_theirs(tmp_path):
    class Stage(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = Residual(branch(3, 3))
            self.second = Residual(branch(3, 3))

        def forward(self, x):
            return self.second(self.first(x))

    model = nn.Sequential(nn.Conv2d(3, 3, 1), Stage())
    run = trace(model, tmp_path / "run", torch.randn(2, 3, 4, 4))
    assert list(run.junctions.layer) == ["1.first", "1.second"]


def test_a_plain_block_has_no_junction(tmp_path):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = branch(3, 3)

        def forward(self, x):
            return self.body(x)

    model = nn.Sequential(nn.Conv2d(3, 3, 1), Plain())
    assert trace(model, tmp_path / "run", torch.randn(2, 3, 4, 4)).junctions.empty


def test_accumulated_passes_add_up_as_one_batch_would(tmp_path):
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), Residual(nn.Conv2d(4, 4, 3, padding=1), activation=False)
    ).double()
    x = torch.randn(6, 3, 5, 5, dtype=torch.float64)
    whole = trace(model, tmp_path / "whole", x).junctions.iloc[0]
    parts = trace(model, tmp_path / "parts", x[:2], x[2:]).junctions.iloc[0]
    for name in ("gradient_norm", "skip_share", "skip_branch_cosine", "skip_variance"):
        assert parts[name] == pytest.approx(whole[name], rel=1e-10), name


def test_a_branch_of_zero_gradient_has_no_cosine_rather_than_a_made_up_one(tmp_path):
    block = Residual(nn.Conv2d(4, 4, 1), activation=False)
    nn.init.zeros_(block.branch.weight)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), block)
    row = trace(model, tmp_path / "run", torch.randn(2, 3, 4, 4)).junctions.iloc[0]
    assert row.branch_gradient_norm == 0
    assert math.isnan(row.skip_branch_cosine)
    assert row.skip_share == pytest.approx(1.0)


def test_an_input_with_a_gradient_of_its_own_is_split_though_it_is_a_leaf(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(Residual(nn.Linear(4, 4), activation=False)).double()
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    row = trace(model, tmp_path / "run", x).junctions.iloc[0]
    assert row.input_gradient_norm == pytest.approx(float(x.grad.norm()), rel=1e-12)
    assert row.gradient_norm == pytest.approx(float(x.grad.norm()), rel=1e-12)


def test_several_backward_passes_through_one_graph_add_up(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), Residual(nn.Linear(4, 4), activation=False)).double()
    x = torch.randn(3, 3, dtype=torch.float64)
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        output = model(x).square().sum()
        output.backward(retain_graph=True)
        output.backward()
        tracer.step()
    twice = gradflow.open_run(tmp_path / "run").junctions.iloc[0]
    once = trace(model, tmp_path / "once", x).junctions.iloc[0]
    assert twice.gradient_norm == pytest.approx(once.gradient_norm * 2**0.5, rel=1e-12)
    assert twice.skip_share == pytest.approx(once.skip_share, rel=1e-12)


def test_an_output_that_no_loss_uses_gives_no_row(tmp_path):
    model = nn.ModuleDict({"stem": nn.Linear(3, 4), "block": Residual(nn.Linear(4, 4))})
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        y = model["stem"](torch.randn(3, 3))
        model["block"](y)
        y.sum().backward()
        tracer.step()
    run = gradflow.open_run(tmp_path / "run")
    assert run.junctions.empty
    assert run.description["residual_additions"]["found"] == 1


def test_products_are_those_of_the_gradients():
    generator = torch.Generator().manual_seed(0)
    s, b, o = (torch.randn(4, 5, dtype=torch.float64, generator=generator) for _ in range(3))
    products = gradient_products(s + b + o, s, b, [o])
    g, whole = s + b, s + b + o
    pairs = [(g, g), (s, s), (b, b), (s, b), (s, g), (whole, whole)]
    assert products[:6].tolist() == pytest.approx([float((x * y).sum()) for x, y in pairs])
    assert float(products[6]) < 1e-28
    # Where something else reads x and is not known, it is what is left.
    assert float(gradient_products(whole, s, b)[6]) == pytest.approx(float(o.square().sum()))
    tiny = [part.float() * 1e-25 for part in (s + b, s, b)]
    assert float(gradient_products(*tiny)[0]) == pytest.approx(float((g * g).sum()) * 1e-50)
