"""Several residual streams that are mixed by small matrices: hyper-connections."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradflow.hooks.residual.junctions import find_junctions

WIDTH, STREAMS = 6, 4


class ToStreams(nn.Module):
    def forward(self, x):
        return x.unsqueeze(-2).repeat(1, 1, STREAMS, 1)


class Hyper(nn.Module):
    """Zhu et al. 2024, Hyper-connections, algorithm 2: one matrix makes the branch's input and the
    streams that are passed on. x is its product with the streams.
    """

    def __init__(self, layer, dynamic):
        super().__init__()
        first = torch.zeros(STREAMS, 1)
        first[layer % STREAMS] = 1
        self.alpha = nn.Parameter(torch.cat([first, torch.eye(STREAMS)], 1))
        self.beta = nn.Parameter(torch.rand(STREAMS))
        self.norm = nn.LayerNorm(WIDTH)
        self.to_alpha = nn.Parameter(torch.randn(WIDTH, STREAMS + 1))
        self.to_beta = nn.Parameter(torch.randn(WIDTH))
        self.dynamic = dynamic
        self.layer = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU())

    def weights(self, streams):
        alpha, beta = self.alpha[None, None], self.beta.expand(streams.shape[:3])
        if self.dynamic:
            normed = self.norm(streams)
            alpha = alpha + 0.3 * (normed @ self.to_alpha).tanh()
            beta = beta + 0.3 * (normed @ self.to_beta).tanh()
        return alpha, beta

    def fork(self, x):
        return x, x

    def forward(self, streams):
        alpha, beta = self.weights(streams)
        skip, branch = self.fork(alpha.transpose(-1, -2) @ streams)
        out = self.layer(branch[..., 0, :])
        return torch.einsum("bld,bls->blsd", out, beta) + skip[..., 1:, :]


class Einsum(Hyper):
    """As in lucidrains' hyper-connections: the streams lie along the batch."""

    def forward(self, streams):
        alpha, beta = self.weights(streams)
        alpha = alpha.expand(*streams.shape[:2], -1, -1)
        mixed = torch.einsum("blst,blsd->bltd", alpha, streams)
        skip, branch = self.fork(mixed)
        out, kept = self.layer(branch[..., 0, :]), skip[..., 1:, :]
        out = torch.einsum("bld,bls->blsd", out, beta).transpose(1, 2).flatten(0, 1)
        both = kept.transpose(1, 2).flatten(0, 1) + out
        return both.unflatten(0, (-1, STREAMS)).transpose(1, 2)


class Constrained(nn.Module):
    """Xie et al. 2025, mHC: matrices of their own, that of the skip close to doubly stochastic."""

    def __init__(self):
        super().__init__()
        self.norm = nn.RMSNorm(STREAMS * WIDTH)
        self.maps = nn.Linear(STREAMS * WIDTH, 2 * STREAMS + STREAMS**2)
        self.layer = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU())

    def forward(self, x):
        return self.add(x, x)

    def add(self, skip, branch):
        sizes = [STREAMS, STREAMS, STREAMS**2]
        read, write, mix = self.maps(self.norm(branch.flatten(-2))).split(sizes, -1)
        mix = mix.unflatten(-1, (STREAMS, STREAMS)).exp()
        for _ in range(3):
            mix = mix / mix.sum(-1, keepdim=True)
            mix = mix / mix.sum(-2, keepdim=True)
        out = self.layer((read.sigmoid().unsqueeze(-2) @ branch).squeeze(-2))
        return mix @ skip + 2 * write.sigmoid().unsqueeze(-1) * out.unsqueeze(-2)


def network(*blocks):
    return nn.Sequential(nn.Linear(3, WIDTH), ToStreams(), *blocks)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("form", [Hyper, Einsum])
def test_one_matrix_for_the_branch_and_the_streams(check, images, form, dynamic):
    torch.manual_seed(0)
    model = network(form(0, dynamic), form(1, dynamic), form(2, dynamic))
    check(model, images(2, 3, 3), {"2": "2", "3": "3", "4": "4"}, "mixed")


def test_a_matrix_of_its_own_for_the_skip(check, images):
    torch.manual_seed(0)
    model = network(Constrained(), Constrained())
    check(model, images(2, 3, 3), {"2": "2", "3": "3"}, "mixed")


def layer(inputs=WIDTH, outputs=WIDTH):
    return nn.Linear(inputs, outputs, bias=False)


def coupling_after_a_mixing_of_channels(x):
    """Kingma & Dhariwal 2018, Glow."""
    first, second = layer()(x).chunk(2, -1)
    return torch.cat([first + layer(3, 3)(second).relu(), second], -1)


def coupling_by_slices(x):
    mixed = layer()(x)
    return mixed[:, :3] + layer(3, 3)(mixed[:, 3:]).relu()


def attention_beside_a_layer(x):
    """The matrix is made of queries and keys."""
    return (layer()(x) @ layer()(x).T).softmax(-1) @ x + layer()(x).relu()


def streams_of_other_data(x):
    """What the branch adds is weighted by data that the streams are not computed from."""
    mixed = torch.randn(5, 3).mm(layer(WIDTH, WIDTH)(x)[:3]).view(5, 3, 2)
    weights = layer(2, 2)(torch.randn(5, 2)).unsqueeze(1)
    return mixed[:, 1:] + weights * layer(2, 2)(mixed[:, 0]).relu().unsqueeze(1)


OTHER = (
    coupling_after_a_mixing_of_channels,
    coupling_by_slices,
    attention_beside_a_layer,
    streams_of_other_data,
)


@pytest.mark.parametrize("function", OTHER)
def test_other_products_with_matrices_are_not_reported(function):
    torch.manual_seed(0)
    x = F.linear(torch.randn(5, WIDTH), torch.randn(WIDTH, WIDTH, requires_grad=True))
    assert [one.skip_type for one in find_junctions(function(x)).junctions] == []
