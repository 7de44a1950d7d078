"""Outputs [N, T, H] by position, and which axis is T."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow import Tracer
from gradflow.runs.reading.run import open_run

WORDS = 13


class Attention(nn.Module):
    """Causal self-attention of one head or two, written out or by torch's function."""

    def __init__(self, size: int, *, by_torch: bool) -> None:
        super().__init__()
        self.all, self.out, self.by_torch = (
            nn.Linear(size, 3 * size),
            nn.Linear(size, size),
            by_torch,
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = self.all(x).chunk(3, -1)
        q, k, v = (one.unflatten(-1, (2, -1)).transpose(1, 2) for one in parts)
        if self.by_torch:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
            hidden = torch.ones_like(scores).triu(1).bool()
            mixed = scores.masked_fill(hidden, -math.inf).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, size: int, *, by_torch: bool) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(size), Attention(size, by_torch=by_torch)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(self.norm(x))


class Characters(nn.Module):
    def __init__(self, *, by_torch: bool) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, 8), nn.Embedding(100, 8)
        self.blocks = nn.Sequential(*(Block(8, by_torch=by_torch) for _ in range(2)))
        self.head = nn.Linear(8, WORDS)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens) + self.places(torch.arange(tokens.shape[1]))
        return self.head(self.blocks(x))


def table_of(model: nn.Module, folder, inputs: Tensor, steps: int = 1, **options) -> pd.DataFrame:
    with Tracer(model, folder, **options) as tracer:
        for _ in range(steps):
            out = model(inputs)
            (out if isinstance(out, Tensor) else out[0]).square().mean().backward()
            tracer.step()
        tracer.end_epoch()
    return open_run(folder).table("positions")


@pytest.mark.parametrize("by_torch", [True, False])
def test_a_transformers_blocks_have_the_gradients_of_autograd_by_position(tmp_path, by_torch):
    model, tokens = Characters(by_torch=by_torch), torch.randint(WORDS, (3, 10))
    kept = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _m, _a, out, name=name: (out.retain_grad(), kept.update({name: out}))[0]
        )
        for name in ("words", "blocks.0", "blocks.1")
    ]
    table = table_of(model, tmp_path, tokens, 2)
    del handles
    last = table[table["step"] == 1]
    # Blocks that add a skip stand for those in them; positions [T, H] are no batch of sequences.
    assert list(last["layer"].drop_duplicates()) == ["blocks.1", "blocks.0", "words"]
    for layer, output in kept.items():
        rows = last[last["layer"] == layer]
        assert rows["first_position"].tolist() == list(range(10))
        wanted = output.grad.double().square().sum((0, 2)).sqrt().numpy()
        assert rows["gradient_norm"].to_numpy() == pytest.approx(wanted, rel=1e-6)
        rms = output.detach().double().square().mean((0, 2)).sqrt().numpy()
        assert rows["rms"].to_numpy() == pytest.approx(rms, rel=1e-6)


def test_a_long_sequence_has_at_most_32_bins_that_are_alike_but_for_the_last(tmp_path):
    model, x = nn.GRU(2, 3, batch_first=True), torch.randn(2, 101, 2)
    table = table_of(model, tmp_path, x)
    rows = table[table["tensor"] == "output"]
    assert rows["first_position"].tolist() == list(range(0, 101, 4))
    assert rows["last_position"].tolist() == [*range(3, 100, 4), 100]
    leaf = model(x)[0].detach().requires_grad_()
    leaf.square().mean().backward()
    squares = leaf.grad.square().sum((0, 2)).double().numpy()
    wanted = [np.sqrt(squares[at : at + 4].mean()) for at in range(0, 101, 4)]
    assert rows["gradient_norm"].to_numpy() == pytest.approx(wanted, rel=1e-5)


def test_layers_say_that_time_comes_first(tmp_path):
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)
    model = nn.Sequential(nn.Embedding(WORDS, 8), layer)
    table = table_of(model, tmp_path, torch.randint(WORDS, (7, 3)), 2)
    assert set(table["layer"]) == {"0", "1", "1.self_attn"}
    assert table.groupby(["step", "layer"])["bin"].size().unique().tolist() == [7]


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(4, 6, 3), nn.ReLU(), nn.Conv1d(6, 6, 3))
        self.block = Wrapped(self.body)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class Wrapped(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Mixed(nn.Module):
    """An attention over T positions beside a convolution whose channels are as many as T."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.convolutions = Attention(8, by_torch=False), Convolutions()
        self.convolutions.body[0] = nn.Conv1d(8, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolutions(self.attention(x).transpose(1, 2)).sum()


def test_what_cannot_be_told_is_left_out(tmp_path):
    words = nn.Embedding(WORDS, 8)
    fields = nn.Sequential(words, nn.Linear(8, 2))  # nothing says which axis is a sequence
    assert not len(table_of(fields, tmp_path / "a", torch.randint(WORDS, (3, 5))))
    assert not len(table_of(Convolutions(), tmp_path / "b", torch.randn(3, 4, 9)))
    # As many sequences as positions: which axis is which stays unknown.
    model = Characters(by_torch=False)
    assert not len(table_of(model, tmp_path / "c", torch.randint(WORDS, (6, 6))))


def test_an_axis_of_channels_is_never_taken_for_time(tmp_path):
    table = table_of(Mixed(), tmp_path, torch.randn(3, 6, 8), 2)
    assert set(table["layer"]) == {"attention"}


class Tanh(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x):
        return torch.tanh(self.linear(x))


class RecurrentLater(nn.Module):
    """A block, and from a later step on a recurrent layer that says which axis is that of time."""

    def __init__(self):
        super().__init__()
        self.block, self.recurrent = Tanh(), nn.LSTM(6, 6, batch_first=True)
        self.is_recurrent = False

    def forward(self, x):
        x = self.block(x)
        return self.recurrent(x)[0] if self.is_recurrent else x


def test_a_block_is_watched_again_once_a_layer_says_which_axis_is_that_of_time(tmp_path):
    model = RecurrentLater()
    with Tracer(model, tmp_path / "run") as tracer:
        for step in range(9):
            model.is_recurrent = step >= 6
            model(torch.randn(2, 8, 6)).sum().backward()
            tracer.step()
    rows = open_run(tmp_path / "run").positions
    steps = set(rows[rows.layer == "block"].step)
    assert steps >= {7, 8}
    assert not steps & set(range(6))
