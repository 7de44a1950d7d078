"""Multilayer perceptrons on tables and digits, and a network on made graphs."""

import random
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from training import Training

from healthy.recipe import classify, freeze, pool, recipe, regress
from healthy.sources import digits, table


class Perceptron(nn.Module):
    """Linear layers with activations and perhaps norms and dropout, and a head."""

    def __init__(
        self,
        widths: list[int],
        outputs: int,
        activation: type[nn.Module],
        norm: type[nn.Module] | None,
        dropout: float,
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for first, second in pairwise(widths):
            layer = nn.Linear(first, second)
            if activation is nn.ReLU:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            else:
                nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
            parts += [layer, *([norm(second)] if norm else []), activation()]
            parts += [nn.Dropout(dropout)] if dropout else []
        self.body = nn.Sequential(*parts)
        self.head = nn.Linear(widths[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs, [N, outputs]."""
        out: Tensor = self.head(self.body(x))
        return out


def perceptron(
    draw: random.Random,
    *,
    of_digits: bool,
    depth: int | None = None,
    activation: type[nn.Module] | None = None,
    plain: bool = False,
) -> Training:
    """Two to five layers; `plain` without norm and dropout."""
    name = "digits" if of_digits else draw.choice(["breast_cancer", "wine", "diabetes"])
    x, y = digits() if of_digits else table(name)
    x = x.flatten(1)
    outputs = {"digits": 10, "breast_cancer": 2, "wine": 3, "diabetes": 1}[name]
    depth = depth or draw.randrange(1, 5)
    activation = activation or draw.choice([nn.ReLU, nn.ReLU, nn.Tanh, nn.GELU])
    norm = None if plain else draw.choice([None, None, nn.BatchNorm1d, nn.LayerNorm])
    dropout = 0.0 if plain else draw.choice([0.0, 0.0, 0.1])
    width = draw.choice([32, 48, 64])
    regression = name == "diabetes"
    model = Perceptron([x.shape[1], *[width] * depth], outputs, activation, norm, dropout)
    training = recipe(
        draw,
        "perceptron, digits" if of_digits else "perceptron, tables",
        model,
        pool(x, y, 32, draw.randrange(1000)),
        regress if regression else classify,
        steps=(80, 140),
        head="head",
        classes=0 if regression else outputs,
        learns=0.85,
        # 353 samples are soon learnt by heart at the usual rates.
        factor=0.4 if regression else 1.0,
        words=[
            name,
            f"{depth} layers of {width}",
            activation.__name__,
            getattr(norm, "__name__", "no norm"),
        ],
    )
    if not plain and depth > 1 and draw.random() < 0.1:
        freeze(training, [model.body[0]], "frozen first layer")
    return training


class GraphNet(nn.Module):
    """Graph convolutions: the mean over neighbours, a linear layer, ReLU (Kipf & Welling 2017)."""

    def __init__(self, adjacency: Tensor, widths: list[int], classes: int, skip: bool) -> None:
        super().__init__()
        self.register_buffer("adjacency", adjacency)
        self.layers = nn.ModuleList(nn.Linear(first, second) for first, second in pairwise(widths))
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self.skip = skip
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every node, [nodes, classes]."""
        for layer in self.layers:
            out = F.relu(layer(self.adjacency @ x))
            x = x + out if self.skip and out.shape == x.shape else out
        logits: Tensor = self.head(x)
        return logits


def graph(draw: random.Random) -> Training:
    """Which of four communities a node is in, from noisy features and whom it is linked to."""
    nodes, classes, features = 240, 4, 16
    generator = torch.Generator().manual_seed(draw.randrange(1000))
    groups = torch.randint(classes, (nodes,), generator=generator)
    alike = groups[:, None] == groups[None]
    chance = torch.where(alike, 0.12, 0.02)
    links = (torch.rand(nodes, nodes, generator=generator) < chance).float().triu(1)
    links = links + links.T + torch.eye(nodes)
    root = links.sum(1).rsqrt()
    adjacency = root[:, None] * links * root[None]
    centres = torch.randn(classes, features, generator=generator)
    x = centres[groups] + 1.5 * torch.randn(nodes, features, generator=generator)
    depth, width, skip = draw.randrange(2, 4), draw.choice([24, 32, 48]), draw.random() < 0.5
    model = GraphNet(adjacency, [features, *[width] * depth], classes, skip)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        chosen = torch.Generator().manual_seed(step)
        noise = 0.3 * torch.randn(x.shape, generator=chosen)
        return x + noise, groups

    return recipe(
        draw,
        "graph network",
        model,
        (batch, None),
        classify,
        steps=(70, 110),
        head="head",
        classes=classes,
        learns=0.75,
        words=[f"{depth} layers of {width}", "skips" if skip else "no skips"],
    )
