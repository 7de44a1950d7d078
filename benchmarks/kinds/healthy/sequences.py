"""Recurrent networks over sequences: LSTM, GRU, and plain ones that keep their gradient in time."""

import math
import random
from functools import partial

import torch
from torch import Tensor, nn
from training import Training

from healthy.recipe import classify, constant, cosine, pool, recipe, regress, stepped, warm_up
from healthy.sources import CHARACTERS, digits, marked_sums, recall, text, waves, windows

SYMBOLS = len(CHARACTERS)


class Sequence(nn.Module):
    """A recurrent network, and a head on its last state, on every one, or on their mean.

    The inputs are [N, T, features], or numbers of characters, [N, T].
    """

    def __init__(
        self, recurrent: nn.RNNBase, outputs: int, read: str, symbols: int | None = None
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, recurrent.input_size) if symbols else None
        self.recurrent = recurrent
        self.read = read
        self.head = nn.Linear(recurrent.hidden_size, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs, [N, outputs] or [N, T, outputs]."""
        if self.embedding is not None:
            x = self.embedding(x)
        if not self.recurrent.batch_first:
            x = x.transpose(0, 1)
        states, _ = self.recurrent(x)
        if not self.recurrent.batch_first:
            states = states.transpose(0, 1)
        if self.read != "every":
            states = states[:, -1] if self.read == "last" else states.mean(1)
        out: Tensor = self.head(states)
        return out


def remember(recurrent: nn.RNNBase, length: int) -> None:
    """Begin with gates that keep a state for about `length` steps (Tallec & Ollivier 2018)."""
    size = recurrent.hidden_size
    gate = slice(size, 2 * size)  # the forget gate of an LSTM, the update gate of a GRU
    with torch.no_grad():
        for name, one in recurrent.named_parameters():
            if name.startswith("bias_ih"):
                one[gate] = math.log(length - 1)
            elif name.startswith("bias_hh"):
                one[gate] = 0.0


def keep_norm(recurrent: nn.RNN) -> None:
    """Begin with recurrent weights that keep the norm: orthogonal, or the identity for ReLU."""
    with torch.no_grad():
        for name, one in recurrent.named_parameters():
            if name.startswith("weight_hh") and recurrent.nonlinearity == "relu":
                nn.init.eye_(one)
            elif name.startswith("weight_hh"):
                nn.init.orthogonal_(one)
            elif name.startswith("weight_ih"):
                nn.init.normal_(one, 0.0, 0.3 / one.shape[1] ** 0.5)
            else:
                nn.init.zeros_(one)


def _pixels(images: Tensor, rows: bool) -> Tensor:
    return images.flatten(1, 2) if rows else images.flatten(1)[..., None]


def recurrent(draw: random.Random, *, kind: str, tasks: tuple[str, ...] = ()) -> Training:
    """A recurrent network on characters, waves, marked sums, or digits pixel by pixel."""
    hidden, layers = draw.choice([32, 48, 64]), draw.choice([1, 1, 2])
    last = ["recall", "pixels"] if kind == "rnn" else ["recall", "sums"]
    task = draw.choice(list(tasks) or ["characters", "waves", *last])
    length = {"characters": 40, "pixels": 64, "sums": 24}.get(task, draw.choice([32, 48, 64]))
    features, outputs, symbols = {
        "characters": (24, SYMBOLS, SYMBOLS),
        "waves": (1, 3, None),
        "pixels": (1, 10, None),
        "sums": (2, 1, None),
        "recall": (4, 4, None),
    }[task]
    make = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[kind]
    options = {"nonlinearity": draw.choice(["tanh", "relu"])} if kind == "rnn" else {}
    layers = 1 if kind == "rnn" else layers
    module = make(features, hidden, layers, batch_first=draw.random() < 0.7, bias=True, **options)
    read = {"characters": "every", "waves": "mean"}.get(task, "last")
    if kind == "rnn":
        keep_norm(module)
    elif read == "last":
        remember(module, length)
    size = 24
    if task == "characters":
        tokens = text()
        cut = len(tokens) * 9 // 10
        batches = (
            partial(windows, tokens[:cut], length, 12),
            partial(windows, tokens[cut:], length, 12),
        )
    elif task == "pixels":
        images, labels = digits()
        batches = pool(_pixels(images, False), labels, 32, draw.randrange(1000))
    else:
        make_batch = {"waves": waves, "sums": marked_sums, "recall": recall}[task]
        made = partial(make_batch, length, size)
        batches = (made, lambda step: made(900_000 + step))
    training = recipe(
        draw,
        kind,
        Sequence(module, outputs, read, symbols),
        batches,
        regress if task == "sums" else classify,
        steps=(110, 170),
        head="head",
        classes=0 if task == "sums" else outputs,
        rules=("Adam", "AdamW"),
        factor=0.5 if kind == "rnn" else 2.0,
        schedules=(constant, warm_up, cosine, stepped),
        half=False,
        learns=0.9,
        words=[task, f"{layers} layers of {hidden} over {length}", *options.values()],
    )
    training.clip = 1.0
    return training
