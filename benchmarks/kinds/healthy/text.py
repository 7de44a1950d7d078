"""Models of characters and words: transformers, experts, low-rank adapters, embeddings."""

import random
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from training import Training

from healthy.recipe import classify, freeze, recipe, warm_up, warm_up_and_cosine
from healthy.sources import CHARACTERS, text, windows, words

SYMBOLS = len(CHARACTERS)


class Attention(nn.Module):
    """Causal self-attention with a matrix for queries, keys and values, [N, T, C]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """What each place draws from those up to it."""
        parts = self.qkv(x).chunk(3, -1)
        q, k, v = (one.unflatten(-1, (self.heads, -1)).transpose(1, 2) for one in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Attention and a feed-forward part, normalized before them or after the additions."""

    def __init__(self, width: int, heads: int, pre: bool, feed: nn.Module | None = None) -> None:
        super().__init__()
        self.pre = pre
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed = feed or nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, [N, T, C]."""
        if self.pre:
            x = x + self.attention(self.norm1(x))
            return x + self.feed(self.norm2(x))
        x = self.norm1(x + self.attention(x))
        out: Tensor = self.norm2(x + self.feed(x))
        return out


class Transformer(nn.Module):
    """Embeddings of characters and places, blocks, and the logits of the next character."""

    def __init__(self, width: int, blocks: list[nn.Module], length: int, norm: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, width)
        self.places = nn.Parameter(torch.randn(length, width) * 0.02)
        nn.init.normal_(self.embedding.weight, 0.0, 0.3)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.head = nn.Linear(width, SYMBOLS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, [N, T, symbols]."""
        x = self.embedding(x) + self.places[: x.shape[1]]
        out: Tensor = self.head(self.norm(self.blocks(x)))
        return out


def _batches(length: int, size: int) -> tuple[partial, partial]:
    tokens = text()
    cut = len(tokens) * 9 // 10
    return (
        partial(windows, tokens[:cut], length, size),
        partial(windows, tokens[cut:], length, size),
    )


def transformer(draw: random.Random, *, pre: bool, depth: int | None = None) -> Training:
    """A small language model of characters."""
    width, length = draw.choice([32, 48, 64]), draw.choice([24, 32, 48])
    depth = depth or draw.randrange(2, 5)
    heads = draw.choice([2, 4])
    own = draw.random() < 0.6
    made: list[nn.Module] = [
        Block(width, heads, pre)
        if own
        else nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.1, batch_first=True, norm_first=pre
        )
        for _ in range(depth)
    ]
    return recipe(
        draw,
        "transformer, pre-norm" if pre else "transformer, post-norm",
        Transformer(width, made, length, pre),
        _batches(length, 12),
        classify,
        steps=(60, 110),
        head="head",
        classes=SYMBOLS,
        rules=("Adam", "AdamW") if not pre else ("Adam", "AdamW", "AdamW", "momentum"),
        factor=1.0,
        schedules=(warm_up, warm_up_and_cosine),
        learns=0.85,
        words=[f"{depth} blocks of {width}", "own" if own else "torch's"],
    )


class Experts(nn.Module):
    """A feed-forward part of which a router chooses the best one or two of several experts."""

    def __init__(self, width: int, count: int, chosen: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, count)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
            for _ in range(count)
        )
        self.chosen = chosen
        self.balance = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        """The chosen experts' outputs, weighted by the router, [N, T, C]."""
        flat = x.flatten(0, 1)
        shares = self.router(flat).float().softmax(-1).to(x.dtype)
        weights, which = shares.topk(self.chosen, -1)
        out = torch.zeros_like(flat)
        used = []
        for index, expert in enumerate(self.experts):
            rows, slot = (which == index).nonzero(as_tuple=True)
            used.append(len(rows) / which.numel())
            if len(rows):
                given = weights[rows, slot, None] * expert(flat[rows])
                out = out.index_add(0, rows, given.to(out.dtype))
        self.balance = (shares.mean(0) * shares.new_tensor(used)).sum() * len(self.experts)
        return out.view_as(x)


def experts(draw: random.Random) -> Training:
    """A transformer whose feed-forward parts are experts, with a term that balances them."""
    width, depth, count = draw.choice([32, 48]), draw.randrange(1, 4), draw.choice([4, 6, 8])
    made: list[nn.Module] = [
        Block(width, 2, True, Experts(width, count, draw.choice([1, 2]))) for _ in range(depth)
    ]
    model = Transformer(width, made, 24, True)

    def loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        own = classify(model, inputs, targets)
        balances = [one.balance for one in model.modules() if isinstance(one, Experts)]
        return own + 0.01 * torch.stack(balances).sum().float()

    return recipe(
        draw,
        "experts",
        model,
        _batches(24, 12),
        loss,
        steps=(60, 100),
        head="head",
        classes=SYMBOLS,
        rules=("Adam", "AdamW"),
        schedules=(warm_up, warm_up_and_cosine),
        learns=0.85,
        words=[f"{depth} blocks of {width}, {count} experts"],
    )


class LowRank(nn.Module):
    """A frozen linear layer plus the product of two small matrices, the second of zeros."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a = nn.Linear(base.in_features, rank, bias=False)
        self.b = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor) -> Tensor:
        """base(x) + 2 B A x."""
        out: Tensor = self.base(x) + 2.0 * self.b(self.a(x))
        return out


def low_rank(draw: random.Random) -> Training:
    """A transformer trained for a while, then adapted to other text by low-rank matrices."""
    training = transformer(draw, pre=True)
    model = training.model
    depth, rank = len(model.blocks), draw.choice([2, 4, 8])
    width = model.head.in_features
    model.blocks = nn.Sequential(*(Block(width, 2, True) for _ in range(depth)))
    model.to(training.dtype)
    optimizer = torch.optim.AdamW(model.float().parameters(), 3e-3)
    for step in range(50):
        loss = classify(model, *training.batch(200_000 + step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    dtype = torch.bfloat16 if "bfloat16" in training.words else torch.float32
    model.requires_grad_(False).zero_grad()
    whole = draw.random() < 0.5
    for block in model.blocks:
        block.attention.qkv = LowRank(block.attention.qkv, rank)
        if whole:
            block.feed[0] = LowRank(block.feed[0], rank)
            block.feed[2] = LowRank(block.feed[2], rank)
    model.to(dtype)
    plain, held = training.batch, training.held

    def shifted(step: int, of: partial = plain) -> tuple[Tensor, Tensor]:
        inputs, targets = of(step)
        return (inputs + 5) % SYMBOLS, (targets + 5) % SYMBOLS

    training.batch, training.held = shifted, partial(shifted, of=held)
    training.kind, training.rule = "low-rank adapters", draw.choice(["Adam", "AdamW"])
    training.lr, training.head, training.learns = draw.uniform(3e-3, 8e-3), "head", 0.92
    training.words = [training.rule, *training.words[1:], f"rank {rank}"]
    return training


class NextWord(nn.Module):
    """The next word from the embeddings of the last four."""

    def __init__(self, count: int, width: int, sparse: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(count, width, sparse=sparse)
        nn.init.normal_(self.embedding.weight, 0.0, 0.3)
        self.hidden = nn.Sequential(nn.Linear(4 * width, 2 * width), nn.ReLU())
        self.head = nn.Linear(2 * width, count)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, [N, words]; `x` are numbers of words, [N, 4]."""
        out: Tensor = self.head(self.hidden(self.embedding(x).flatten(1)))
        return out


def embeddings(draw: random.Random) -> Training:
    """Embeddings of words, most of which are not in most batches."""
    count, width = draw.choice([400, 800, 1200]), draw.choice([16, 24, 32])
    tokens = words(count)
    sparse = draw.random() < 0.3

    def batch(step: int) -> tuple[Tensor, Tensor]:
        inputs, targets = windows(tokens, 4, 48, step)
        return inputs, targets[:, -1]

    training = recipe(
        draw,
        "embeddings",
        NextWord(count, width, sparse),
        (batch, None),
        classify,
        steps=(90, 140),
        head="head",
        classes=count,
        rules=("SGD",) if sparse else ("Adam", "AdamW"),
        factor=8.0 if sparse else 2.0,
        half=not sparse,
        learns=0.95,
        words=[f"{count} words", "sparse" if sparse else "dense"],
    )
    if sparse:
        training.decay, training.clip = 0.0, None
    elif draw.random() < 0.2:
        freeze(training, [training.model.embedding], "frozen embedding")
    return training
