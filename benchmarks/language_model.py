"""A narrow language model with many layers, and its training on a text under the tracer.

The network has the shape of a decoder-only transformer: blocks that normalize first, separate
projections of queries, keys and values, rotary positions, and a gated MLP (Touvron et al. 2023,
arXiv:2302.13971), with biases on queries, keys and values (Bai et al. 2023, arXiv:2309.16609). A
block has 13 modules, 12 of which are observed, and 12 parameter tensors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import gradflow

TEXT = (
    "the quick brown fox jumps over the lazy dog while the small red hen sits on the wall and "
    "counts the stars that fall into the sea one by one until the night is over and the sun "
    "comes up again behind the hills where the river bends and the old mill stands. "
)
LETTERS = sorted(set(TEXT))


@dataclass(frozen=True)
class Size:
    """The model: its blocks and their width."""

    blocks: int = 250
    width: int = 16
    heads: int = 2
    hidden: int = 32  # width of the MLP


class Attention(nn.Module):
    """Causal self-attention of [batch, length, width] with rotary positions."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.q, self.k, self.v = (nn.Linear(size.width, size.width) for _ in range(3))
        self.o = nn.Linear(size.width, size.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The attended values, of the same shape."""
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        q, k, v = (one(x).view(shape).transpose(1, 2) for one in (self.q, self.k, self.v))
        attended = functional.scaled_dot_product_attention(
            rotated(q), rotated(k), v, is_causal=True
        )
        return self.o(attended.transpose(1, 2).reshape(batch, length, width))


class MLP(nn.Module):
    """The gated MLP of Shazeer (2020, arXiv:2002.05202), SwiGLU."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.gate = nn.Linear(size.width, size.hidden, bias=False)
        self.up = nn.Linear(size.width, size.hidden, bias=False)
        self.down = nn.Linear(size.hidden, size.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`."""
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Attention and MLP, each behind a normalization and beside a skip."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(size.width), nn.RMSNorm(size.width)
        self.attn, self.mlp = Attention(size), MLP(size)

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class LanguageModel(nn.Module):
    """Predicts the next of each letter: [batch, length] to [batch, length, letters]."""

    def __init__(self, size: Size, letters: int = len(LETTERS)) -> None:
        super().__init__()
        self.embed = nn.Embedding(letters, size.width)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.blocks))
        self.norm = nn.RMSNorm(size.width)
        self.head = nn.Linear(size.width, letters)
        # As in GPT-2: the sum of all branches keeps the scale of one.
        scale = (2 * size.blocks) ** -0.5
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith(("attn.o.weight", "mlp.down.weight")):
                    parameter.mul_(scale)

    def forward(self, letters: Tensor) -> Tensor:
        """The logits."""
        x = self.embed(letters)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def rotated(x: Tensor) -> Tensor:
    """`x` [batch, heads, length, width] turned by its position (Su et al. 2021, RoPE)."""
    half = x.shape[-1] // 2
    rates = 10_000.0 ** (-torch.arange(half) / half)
    angles = torch.arange(x.shape[-2])[:, None] * rates
    first, second = x[..., :half], x[..., half:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def batches(steps: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Pieces of the text, four of 16 letters a step, and the letters that follow each."""
    codes = torch.tensor([LETTERS.index(letter) for letter in TEXT])
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(steps):
        starts = torch.randint(len(codes) - 17, (4,), generator=generator).tolist()
        found.append(
            (
                torch.stack([codes[start : start + 16] for start in starts]),
                torch.stack([codes[start + 1 : start + 17] for start in starts]),
            )
        )
    return found


def train(
    size: Size,
    folder: Path | None,
    *,
    epochs: int = 3,
    steps: int = 10,
    change: Callable[[LanguageModel], None] = lambda model: None,
    after_step: Callable[[], None] = lambda: None,
) -> LanguageModel:
    """Train a model of `size`, and record every step with histograms in `folder` if it is given.

    Args:
        change: called with the model before the training, for example to plant a fault.
        after_step: called after each step, for example to read the clock.
    """
    torch.manual_seed(0)
    model = LanguageModel(size)
    change(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    pieces = iter(batches(epochs * steps))

    def epoch() -> float:
        total = 0.0
        for _ in range(steps):
            letters, following = next(pieces)
            loss = functional.cross_entropy(model(letters).flatten(0, 1), following.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach())
            after_step()
        return total / steps

    if folder is None:
        for _ in range(epochs):
            epoch()
        return model
    description = {"network": "language model", "seed": 0}
    with gradflow.Tracer(
        model, folder, optimizer=optimizer, histograms=True, description=description
    ) as tracer:
        for _ in range(epochs):
            tracer.end_epoch(train_loss=epoch())
    return model
