"""Skips multiplied by a gate that is computed from x: highway networks, GRU cells as gates."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from gradflow.hooks.residual.junctions import find_junctions

WIDTH = 6


class Block(nn.Module):
    """A block with a layer and a gate; `add` computes it from x for the skip and the branch.

    The gate is computed from the branch's x.
    """

    def __init__(self, width=WIDTH):
        super().__init__()
        self.layer, self.gate = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        return self.add(x, x)


class Highway(Block):
    """Srivastava et al. 2015, Highway networks."""

    def add(self, skip, branch):
        t = self.gate(branch).sigmoid()
        return t * self.layer(branch).relu() + (1 - t) * skip


class CoupledGates(Block):
    """A transform gate and a carry gate of their own."""

    def add(self, skip, branch):
        t, c = self.gate(branch).sigmoid(), (2 * self.gate(branch)).tanh()
        return skip * c + t * self.layer(branch).relu()


class LinearBranch(Block):
    def add(self, skip, branch):
        return self.gate(branch).sigmoid() * skip + self.layer(branch)


class Lerp(Block):
    def add(self, skip, branch):
        return torch.lerp(skip, self.layer(branch).tanh(), self.gate(branch).sigmoid())


class LerpBack(Block):
    def add(self, skip, branch):
        return torch.lerp(self.layer(branch).tanh(), skip, self.gate(branch).sigmoid())


class MultiplyAndAdd(Block):
    def add(self, skip, branch):
        return self.layer(branch).sin().addcmul_(skip, self.gate(branch).sigmoid())


class GateOfTheWholeMap(Block):
    """One gate for each image and channel, in images."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.gate = nn.Conv2d(WIDTH, WIDTH, 1)

    def add(self, skip, branch):
        g = self.gate(F.adaptive_avg_pool2d(branch, 1)).sigmoid()
        return skip * g + self.layer(branch).relu()


class GatedTransformer(Block):
    """The GRU-like gate of Parisotto et al. 2020, Stabilizing transformers for RL."""

    def __init__(self, width=WIDTH):
        super().__init__(width)
        self.maps = nn.ModuleList(nn.Linear(width, width) for _ in range(6))

    def add(self, skip, branch):
        y = self.layer(F.layer_norm(branch, branch.shape[-1:])).relu()
        of_y, of_x = self.maps[:3], self.maps[3:]
        r = (of_y[0](y) + of_x[0](branch)).sigmoid()
        z = (of_y[1](y) + of_x[1](branch) - 2).sigmoid()
        h = (of_y[2](y) + of_x[2](r * branch)).tanh()
        return (1 - z) * skip + z * h


class GRUGating(Block):
    """As in x-transformers: a GRU cell whose state is the residual and whose input the branch."""

    def __init__(self, width=WIDTH):
        super().__init__(width)
        self.gru = nn.GRUCell(width, width)

    def inner(self, x):
        return self.layer(F.layer_norm(x, x.shape[-1:])).relu()

    def forward(self, x):
        y = self.inner(x)
        gated = self.gru(y.reshape(-1, x.shape[-1]), x.reshape(-1, x.shape[-1]))
        return gated.reshape_as(x)

    def add(self, skip, branch):
        """The cell by its formula, as in torch's documentation."""
        of_y = F.linear(self.inner(branch), self.gru.weight_ih, self.gru.bias_ih).chunk(3, -1)
        of_x = F.linear(branch, self.gru.weight_hh, self.gru.bias_hh).chunk(3, -1)
        r, z = (of_y[0] + of_x[0]).sigmoid(), (of_y[1] + of_x[1]).sigmoid()
        n = (of_y[2] + r * of_x[2]).tanh()
        return (1 - z) * n + z * skip


@pytest.mark.parametrize(
    "block", [Highway, CoupledGates, LinearBranch, Lerp, LerpBack, MultiplyAndAdd, GatedTransformer]
)
def test_gated_skips(check, images, block):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, WIDTH), block(), block())
    check(model, images(2, 4, 3), {"1": "1", "2": "2"}, "gated")


def test_one_gate_for_a_whole_channel(check, images):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, WIDTH, 1), GateOfTheWholeMap(), GateOfTheWholeMap())
    check(model, images(2, 2, 4, 4), {"1": "1", "2": "2"}, "gated")


@pytest.mark.parametrize("shape", [(5, 3), (2, 4, 3)])
def test_a_recurrent_cell_as_a_gate(check, images, shape):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, WIDTH), GRUGating(), GRUGating())
    check(model, images(*shape), {"1.gru": "1", "2.gru": "2"}, "gated")


def test_the_sums_within_gates_are_no_rows_and_are_not_counted_in_a_cell(tmp_path, images):
    torch.manual_seed(0)
    for name, block, other_sums in (("own", GatedTransformer(), 3), ("cell", GRUGating(), 0)):
        model = nn.Sequential(nn.Linear(3, WIDTH), block).double()
        with gradflow.Tracer(model, tmp_path / name) as tracer:
            model(images(2, 4, 3)).square().sum().backward()
            tracer.step()
        entry = gradflow.open_run(tmp_path / name).description["residual_additions"]
        assert (entry["found"], entry["other_sums"]) == (1, other_sums)


def layer(width=WIDTH):
    return nn.Linear(width, width)


def cell_over_a_sequence(x):
    """A GRU cell along time: its inputs are not computed from the state."""
    cell, inputs, state = nn.GRUCell(WIDTH, WIDTH), layer()(torch.randn(4, 5, WIDTH)), x
    for given in inputs:
        state = cell(given, state)
    return state


def lstm_over_a_sequence(x):
    weights, inputs = nn.Linear(2 * WIDTH, 4 * WIDTH), layer()(torch.randn(4, 5, WIDTH))
    h = c = x
    for given in inputs:
        i, f, g, o = weights(torch.cat([given, h], -1)).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
    return h


def affine_coupling(x):
    """Dinh et al. 2017: one half is scaled and shifted by functions of the other."""
    first, second = x.chunk(2, -1)
    scale, shift = nn.Linear(3, 6)(first).chunk(2, -1)
    return torch.cat([first, second * scale.exp() + shift], -1)


def masked_coupling(x):
    mask = torch.tensor([1.0, 1, 1, 0, 0, 0])
    return x * layer()(mask * x).exp() + layer()(mask * x)


def rotation_by_learned_angles(x):
    angle, rotated = layer()(x), torch.cat([-x[..., 3:], x[..., :3]], -1)
    return x * angle.cos() + rotated * angle.sin()


def product_of_complex_numbers(x):
    (a, b), (c, d) = x.chunk(2, -1), layer()(x).chunk(2, -1)
    return torch.cat([a * c - b * d, a * d + b * c], -1)


def selective_kernel(x):
    """Li et al. 2019: two branches, weighted by gates computed from both."""
    first, second = layer()(x).relu(), layer()(x).relu()
    pooled = (first + second).mean(0, keepdim=True)
    weights = torch.stack([layer()(pooled), layer()(pooled)]).softmax(0)
    return first * weights[0] + second * weights[1]


def modulation(x):
    """Perez et al. 2018, FiLM: scale and shift come from other data."""
    condition = layer()(torch.randn(5, WIDTH))
    return layer()(x).relu() * layer()(condition) + layer()(condition)


def gated_skip_read_elsewhere(x):
    """What arrives at x through the product is not what arrives through the sum alone."""
    product = x * layer()(x).sigmoid()
    return torch.cat([product + layer()(x).relu(), product.sin()], -1)


def two_powers(x):
    return x * layer()(x).sigmoid() + x.square() * layer()(x).sigmoid()


OTHER = {
    "squeeze and excitation": lambda x: x * layer()(x.mean(0, keepdim=True)).sigmoid(),
    "gated linear unit": lambda x: F.glu(nn.Linear(WIDTH, 2 * WIDTH)(x)),
    "gated activation": lambda x: layer()(F.silu(layer()(x)) * layer()(x)),
    "attention without values": lambda x: (layer()(x) @ layer()(x).T).softmax(-1) @ x,
    "sample of a normal": lambda x: layer()(x) + layer()(x).exp() * torch.randn(5, WIDTH),
    "products of layers": lambda x: layer()(x) * layer()(x) + layer()(x),
    "gated projection": lambda x: layer()(x) * layer()(x).sigmoid() + layer()(x).relu(),
} | {
    function.__name__: function
    for function in (
        cell_over_a_sequence,
        lstm_over_a_sequence,
        affine_coupling,
        masked_coupling,
        rotation_by_learned_angles,
        product_of_complex_numbers,
        selective_kernel,
        modulation,
        gated_skip_read_elsewhere,
        two_powers,
    )
}


@pytest.mark.parametrize("name", OTHER)
def test_other_products_with_gates_are_not_reported(name):
    torch.manual_seed(0)
    x = layer()(torch.randn(5, WIDTH))
    junctions = find_junctions(OTHER[name](x)).junctions
    assert [junction.skip_type for junction in junctions] == []


@pytest.mark.parametrize("module", [nn.GRU, nn.LSTM, nn.RNN])
def test_recurrent_layers_have_no_gated_skips(tmp_path, images, module):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = module(WIDTH, WIDTH, num_layers=2)

        def forward(self, x):
            return self.layer(x)[0]

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, WIDTH), Recurrent(), nn.Linear(WIDTH, 2)).double()
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(images(4, 2, 3)).square().sum().backward()
        tracer.step()
    assert gradflow.open_run(tmp_path / "run").junctions.empty


class ReadTwice(GRUGating):
    """Another operation reads x in the shape in which the cell reads it."""

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        gated = self.gru(self.inner(x).reshape_as(flat), flat)
        return torch.cat([gated, flat.sin()], -1)


def test_who_reads_x_in_another_shape_reads_x(tmp_path, images):
    torch.manual_seed(0)
    stem, block, x = nn.Linear(3, WIDTH).double(), ReadTwice().double(), images(2, 4, 3)
    given = stem(x).detach().requires_grad_()
    block(given).square().sum().backward()
    model = nn.Sequential(stem, block)
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(x).square().sum().backward()
        tracer.step()
    (row,) = gradflow.open_run(tmp_path / "run").junctions.itertuples()
    assert row.layer == "1.gru"
    assert row.residual_error < 1e-12
    assert row.input_gradient_norm == pytest.approx(float(given.grad.norm()), rel=1e-12)
    assert row.gradient_norm != pytest.approx(row.input_gradient_norm, rel=1e-2)


class StateOfACell(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.layer, self.cell = layer(), cell(WIDTH, WIDTH)

    def forward(self, x):
        y = self.layer(x).relu()
        if isinstance(self.cell, nn.LSTMCell):
            return self.cell(y, (x, y))[0]
        return self.cell(y, x)


@pytest.mark.parametrize("cell", [nn.RNNCell, nn.LSTMCell])
def test_what_a_cell_computes_of_its_state_is_no_projection(tmp_path, images, cell):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, WIDTH), StateOfACell(cell)).double()
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(images(5, 3)).square().sum().backward()
        tracer.step()
    run = gradflow.open_run(tmp_path / "run")
    assert run.junctions.empty
    assert run.description["residual_additions"]["found"] == 0


def test_skip_and_branch_variances_of_a_gated_sum_are_not_made_up(tmp_path, images):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, WIDTH), Highway(), Lerp(), GRUGating()).double()
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(images(5, 3)).square().sum().backward()
        tracer.step()
    rows = gradflow.open_run(tmp_path / "run").junctions
    assert len(rows) == 3
    assert rows[["skip_variance", "branch_variance"]].isna().all(axis=None)
