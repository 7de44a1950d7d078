"""Branches that pass through experts: rows gathered, run through a layer, and added back."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from gradflow.hooks.residual.junctions import find_junctions

WIDTH, EXPERTS = 6, 3


class Experts(nn.Module):
    """x + the outputs of the two best experts for each token, weighted by the router.

    `join` says how the outputs come together: it is given the tokens of an expert, all of the sum
    so far, and returns the new sum.
    """

    def __init__(self, join, normed=True):
        super().__init__()
        self.join, self.normed = join, normed
        self.router = nn.Linear(WIDTH, EXPERTS)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, WIDTH))
            for _ in range(EXPERTS)
        )

    def mixture(self, x):
        flat = x.reshape(-1, WIDTH)
        weights, chosen = self.router(flat).softmax(-1).topk(2, -1)
        total = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            tokens, rank = torch.where(chosen == number)
            total = self.join(total, flat, tokens, weights[tokens, rank, None], expert)
        return total.view_as(x)

    def forward(self, x):
        return self.add(x, x)

    def add(self, skip, branch):
        return skip + self.mixture(F.layer_norm(branch, (WIDTH,)) if self.normed else branch)


def index_add(total, x, tokens, weight, expert):
    return total.index_add(0, tokens, weight * expert(x[tokens]))


def index_add_in_place(total, x, tokens, weight, expert):
    return total.index_add_(0, tokens, weight * expert(x[tokens]))


def scatter_add(total, x, tokens, weight, expert):
    rows = tokens[:, None].expand(-1, WIDTH)
    return total.scatter_add(0, rows, weight * expert(x.gather(0, rows)))


def index_put(total, x, tokens, weight, expert):
    return total.index_put_((tokens,), weight * expert(x[tokens]), accumulate=True)


def assignment(total, x, tokens, weight, expert):
    total[tokens] += weight * expert(x[tokens])
    return total


def one_hot(total, x, tokens, weight, expert):
    mask = F.one_hot(tokens, len(x)).to(x.dtype)
    return total + mask.T @ weight * expert(x)


def where(total, x, tokens, weight, expert):
    chosen = torch.zeros(len(x), 1, dtype=torch.bool).index_fill_(0, tokens, True)
    scale = torch.zeros(len(x), 1, dtype=x.dtype).index_add(0, tokens, weight)
    return total + torch.where(chosen, scale * expert(x), 0.0)


@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize(
    "join",
    [index_add, index_add_in_place, scatter_add, index_put, assignment, one_hot, where],
)
def test_experts_are_branches_however_they_are_joined(check, images, join, normed):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, WIDTH), Experts(join, normed), Experts(join, normed))
    check(model, images(2, 4, 3), {"1": "1", "2": "2"}, "identity")


class Onto(nn.Module):
    """Experts whose outputs are added onto x itself, as in a mixture of depths."""

    def __init__(self, onto):
        super().__init__()
        self.onto, self.layer = onto, nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.add(x, x)

    def add(self, skip, branch):
        tokens = torch.tensor([0, 2, 3])
        return self.onto(skip, tokens, self.layer(branch[tokens]).relu())


def rows_of(tokens):
    return tokens[:, None].expand(-1, WIDTH)


ONTO = {
    "index_add": lambda x, tokens, y: x.index_add(0, tokens, y, alpha=0.5),
    "index_add in place": lambda x, tokens, y: x.clone().index_add_(0, tokens, y),
    "scatter_add": lambda x, tokens, y: x.scatter_add(0, rows_of(tokens), y),
    "index_put": lambda x, tokens, y: x.index_put((tokens,), y, accumulate=True),
    "index_add on a view": lambda x, tokens, y: (
        x.clone().view(5, 2, 3).index_add_(0, tokens, y.view(3, 2, 3)).view(5, 6)
    ),
}


@pytest.mark.parametrize("name", ONTO)
def test_rows_added_onto_x(check, images, name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, WIDTH), Onto(ONTO[name]), Onto(ONTO[name]))
    check(model, images(5, 3), {"1": "1", "2": "2"}, "identity")


@pytest.mark.parametrize("in_place", [True, False])
def test_rows_that_replace_those_of_x_are_no_addition(images, in_place):
    torch.manual_seed(0)
    x, tokens = nn.Linear(3, WIDTH).double()(images(5, 3)), torch.tensor([0, 2, 3])
    rows = nn.Linear(WIDTH, WIDTH).double()(x[tokens]).relu()
    y = x.clone().index_put_((tokens,), rows) if in_place else x.index_put((tokens,), rows)
    assert find_junctions(y).junctions == []


class Fused(nn.Module):
    """An addition that is a part of another operation."""

    def __init__(self, operation):
        super().__init__()
        self.operation, self.layer = operation, nn.Linear(WIDTH, WIDTH)
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH))

    def forward(self, x):
        return self.add(x, x)

    def add(self, skip, branch):
        return self.operation(skip, self.layer(branch).tanh(), self.weight)


FUSED = {
    "alpha": lambda x, y, _: torch.add(x, y, alpha=0.3),
    "addcmul": lambda x, y, _: torch.addcmul(x, y, torch.full((WIDTH,), 0.5), value=2),
    "addcmul in place": lambda x, y, w: (0.5 * x).addcmul_(y, w[0]),
    "addcdiv": lambda x, y, _: torch.addcdiv(x, y, torch.full((WIDTH,), 2.0)),
    "addmm": lambda x, y, w: torch.addmm(x, y, w, beta=0.5),
    "baddbmm": lambda x, y, w: torch.baddbmm(x[None], y[None], w[None])[0],
    "lerp": lambda x, y, _: torch.lerp(x, y, 0.3),
}


@pytest.mark.parametrize("name", FUSED)
def test_fused_additions(check, images, name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, WIDTH), Fused(FUSED[name]), Fused(FUSED[name]))
    check(model, images(5, 3), {"1": "1", "2": "2"}, "identity")


@pytest.mark.parametrize("first", [True, False])
def test_variances_are_those_of_what_is_added(tmp_path, images, first):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(WIDTH, WIDTH)

        def forward(self, x):
            y = self.layer(x)
            return torch.add(*((x, y) if first else (y, x)), alpha=0.5)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, WIDTH), Scaled()).double()
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(images(5, 3)).square().sum().backward()
        tracer.step()
    (row,) = gradflow.open_run(tmp_path / "run").junctions.itertuples()
    # What is multiplied within the addition is in no tensor.
    assert (row.skip_variance > 0, row.branch_variance > 0) == (first, not first)


def test_experts_on_the_models_own_input_are_said_not_to_be_found(tmp_path, images):
    torch.manual_seed(0)
    model = nn.Sequential(Experts(index_add, normed=False), nn.Linear(WIDTH, 2)).double()
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(images(2, 4, WIDTH)).square().sum().backward()
        tracer.step()
    entry = gradflow.open_run(tmp_path / "run").description["residual_additions"]
    assert entry["found"] == 0
    assert entry["sentence"].startswith("none found; 2 other sums not taken for residual;")
    assert "where x gets a gradient, unlike a model's input" in entry["sentence"]
