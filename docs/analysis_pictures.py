"""Draws a figure of each analysis that the whole reports in docs/gallery have no figure of.

    OMP_NUM_THREADS=1 python docs/analysis_pictures.py

Trains small networks and writes KEY.svg for each into docs/_static/analyses, with the title and the
caption of the figure as its metadata. The pages of the analyses show them.
"""

import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import torch
from sklearn.datasets import load_digits
from torch import nn

import gradflow

PICTURES = Path(__file__).parent / "_static" / "analyses"


class LastOutput(nn.Module):
    """A recurrent network that answers after the last of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(8, 32, batch_first=True)
        self.head = nn.Linear(32, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores [N, 2] of sequences [N, T, 8]."""
        scores: torch.Tensor = self.head(self.rnn(x)[0][:, -1])
        return scores


def recurrent(folder: Path) -> list[Path]:
    """Twenty steps of a recurrent network on sequences of 40 inputs."""
    model = LastOutput()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with gradflow.Tracer(model, folder / "recurrent", optimizer=optimizer) as tracer:
        for _ in range(20):
            scores = model(torch.randn(16, 40, 8))
            nn.functional.cross_entropy(scores, torch.randint(2, (16,))).backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    return [folder / "recurrent"]


def equation(folder: Path) -> list[Path]:
    """A network that solves u'' = f with u = 0 at both ends: a loss of two terms."""
    model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
    model.append(nn.Linear(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    with gradflow.Tracer(model, folder / "equation", optimizer=optimizer, terms=10) as tracer:
        for _ in range(200):
            x = torch.rand(64, 1, requires_grad=True)
            (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
            (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
            inside = (bend + math.pi**2 * torch.sin(math.pi * x)).square().mean()
            boundary = model(torch.tensor([[0.0], [1.0]])).square().mean()
            tracer.terms({"equation": inside, "boundary": boundary})
            (inside + boundary).backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    return [folder / "equation"]


class Block(nn.Module):
    """A residual block of width 32."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 32), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` [N, 32] and what the branch adds to it."""
        total: torch.Tensor = x + self.branch(x)
        return total


def digits(folder: Path, name: str, rate: float, blocks: int, spoiled: int | None = None) -> Path:
    """Two epochs of a residual network on the digits; `spoiled` has weights ten times as large."""
    torch.manual_seed(0)
    data = load_digits()
    images = torch.tensor(data.data / 16, dtype=torch.float32)
    targets = torch.tensor(data.target)
    model = nn.Sequential(nn.Linear(64, 32), *[Block() for _ in range(blocks)], nn.Linear(32, 10))
    if spoiled is not None:
        with torch.no_grad():
            model[spoiled].branch[1].weight *= 10
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    with gradflow.Tracer(
        model,
        folder / name,
        optimizer=optimizer,
        groups={"blocks": [Block], "first and last": ["0", str(blocks + 1)]},
        description={"network": "residual", "seed": 0},
    ) as tracer:
        for _ in range(2):
            for batch in torch.randperm(len(images)).split(128):
                nn.functional.cross_entropy(model(images[batch]), targets[batch]).backward()
                optimizer.step()
                optimizer.zero_grad()
            tracer.end_epoch()
    return folder / name


def deep(folder: Path) -> list[Path]:
    """A network of 110 blocks, in one of which the weights are ten times too large."""
    return [digits(folder, "deep", 0.01, 110, spoiled=60)]


def usual(folder: Path) -> list[Path]:
    """A network of 8 blocks."""
    return [digits(folder, "usual", 0.1, 8)]


def two_rates(folder: Path) -> list[Path]:
    """The same training with two learning rates."""
    return [digits(folder, f"rate-{rate}", rate, 8) for rate in (0.02, 0.1)]


TRAININGS: dict[str, Callable[[Path], list[Path]]] = {
    "positions": recurrent,
    "terms": equation,
    "outliers": deep,
    "groups": usual,
    "what_changed": two_rates,
}


def main() -> None:
    """Train, ask and draw."""
    PICTURES.mkdir(exist_ok=True)
    mpl.rcParams["svg.hashsalt"] = "gradflow"
    for key in sys.argv[1:] or TRAININGS:
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            outcome = gradflow.analyze(TRAININGS[key](Path(folder)), only=key)[key]
            if outcome.result is None:
                raise SystemExit(f"{key}: {outcome.not_applicable or outcome.failure}")
            figure = outcome.result.figures[0]
            about = {"Title": figure.title, "Description": figure.caption, "Date": None}
            figure.draw().savefig(PICTURES / f"{key}.svg", metadata=about)
            print(f"{key}: {figure.title}")


if __name__ == "__main__":
    main()
