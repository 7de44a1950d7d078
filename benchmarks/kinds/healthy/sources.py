"""The data: digits and tables of scikit-learn, text of Python's own library, made sequences."""

import argparse
import math
import random
import textwrap
from functools import cache
from pathlib import Path

import numpy as np
import torch
from sklearn import datasets
from torch import Tensor

CHARACTERS = "\n abcdefghijklmnopqrstuvwxyz0123456789.,:;()[]='\"_-#"
_MODULES = (argparse, random, textwrap)


@cache
def text() -> Tensor:
    """The source of three modules of Python as character numbers, lower case, [characters]."""
    whole = "".join(Path(str(one.__file__)).read_text(encoding="utf-8") for one in _MODULES).lower()
    return torch.tensor([CHARACTERS.find(one) for one in whole if one in CHARACTERS])


@cache
def words(most: int) -> Tensor:
    """The same text as numbers of words by falling frequency; those beyond `most` are left out."""
    whole = "".join(Path(str(one.__file__)).read_text(encoding="utf-8") for one in _MODULES).lower()
    found = "".join(one if one.isalpha() else " " for one in whole).split()
    names, counts = np.unique(found, return_counts=True)
    ranks = {names[place]: rank for rank, place in enumerate(np.argsort(-counts, kind="stable"))}
    return torch.tensor([ranks[one] for one in found if ranks[one] < most])


def windows(tokens: Tensor, length: int, size: int, step: int) -> tuple[Tensor, Tensor]:
    """`size` pieces of `length` tokens and the tokens that follow each, [N, T]."""
    generator = torch.Generator().manual_seed(step)
    starts = torch.randint(len(tokens) - length - 1, (size, 1), generator=generator)
    places = starts + torch.arange(length)
    return tokens[places], tokens[places + 1]


@cache
def digits() -> tuple[Tensor, Tensor]:
    """1797 images of mean 0 and variance 1, [N, 1, 8, 8], and the digits."""
    found = datasets.load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None]
    return (images - images.mean()) / images.std(), torch.tensor(found.target)


@cache
def table(name: str) -> tuple[Tensor, Tensor]:
    """A set of scikit-learn: columns of mean 0 and variance 1, classes or standardized targets."""
    found = getattr(datasets, f"load_{name}")()
    x = torch.tensor(found.data, dtype=torch.float32)
    x = (x - x.mean(0)) / x.std(0)
    y = torch.tensor(found.target)
    if name == "diabetes":
        y = y.float()[:, None]
        return x, (y - y.mean()) / y.std()
    return x, y


def waves(length: int, size: int, step: int) -> tuple[Tensor, Tensor]:
    """Noisy sines of three frequencies and any phase, [N, T, 1], and which it is."""
    generator = torch.Generator().manual_seed(step)
    which = torch.randint(3, (size,), generator=generator)
    turns = torch.tensor([2.0, 4.0, 7.0])[which]
    phase = torch.rand(size, generator=generator)
    t = torch.arange(length) / length
    angle = 2 * math.pi * (turns[:, None] * t + phase[:, None])
    noise = torch.randn(size, length, generator=generator)
    return (angle.sin() + 0.2 * noise)[..., None], which


def marked_sums(length: int, size: int, step: int) -> tuple[Tensor, Tensor]:
    """Numbers of which two are marked, [N, T, 2], and the sum of those (the adding problem)."""
    generator = torch.Generator().manual_seed(step)
    values = torch.rand(size, length, generator=generator)
    marks = torch.zeros(size, length)
    half = length // 2
    for begin in (0, half):
        place = begin + torch.randint(half, (size, 1), generator=generator)
        marks.scatter_(1, place, 1.0)
    return torch.stack([values - 0.5, marks], -1), ((values - 0.5) * marks).sum(1, keepdim=True)


def recall(length: int, size: int, step: int) -> tuple[Tensor, Tensor]:
    """A symbol of four, then weak noise, [N, T, 4], and which symbol it was."""
    generator = torch.Generator().manual_seed(step)
    which = torch.randint(4, (size,), generator=generator)
    x = 0.1 * torch.randn(size, length, 4, generator=generator)
    x[torch.arange(size), 0, which] += 2.0
    return x, which
