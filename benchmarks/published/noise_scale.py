"""The gradient noise scale of a regression whose noise is known."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from analyses.statistics import theory
from gradflow.probes.gradients.noise_scale import estimate_signal_and_noise
from published.recording import record
from published.rows import Item, Tolerance, compare

PROBLEMS = 20
DRAWS = 100
INPUTS = 20
SMALL, LARGE = 8, 64
DISTANCE, NOISE = 1.0, 1.0
MEAN = Tolerance(errors=4)


def item() -> Item:
    """|G|^2, S and their ratio, each averaged over draws before the division."""
    measured = [estimate_problem(seed) for seed in range(PROBLEMS)]
    squared, noise = theory.regression_noise(INPUTS, DISTANCE, NOISE)
    return Item(
        paper="9  McCandlish et al. 2018: noise scale of linear least squares",
        setting=f"{PROBLEMS} problems, {INPUTS} inputs, {DRAWS} draws, batches {SMALL} and {LARGE}",
        tolerance=str(MEAN),
        rows=(
            compare("|G|^2", squared, [g for g, _ in measured], MEAN),
            compare("S = tr(covariance)", noise, [s for _, s in measured], MEAN),
            compare("B_simple = S / |G|^2", noise / squared, [s / g for g, s in measured], MEAN),
        ),
    )


def estimate_problem(seed: int) -> tuple[float, float]:
    """|G|^2 and S of one problem, from recorded gradients at two batch sizes."""
    torch.manual_seed(seed)
    truth = torch.randn(INPUTS)
    model = nn.Linear(INPUTS, 1, bias=False)
    error = torch.randn(INPUTS)
    model.weight.data = (truth + DISTANCE * error / error.norm())[None]

    def losses() -> Iterator[Tensor]:
        for _ in range(DRAWS):
            for batch in (SMALL, LARGE):
                x = torch.randn(batch, INPUTS)
                y = x @ truth + NOISE * torch.randn(batch)
                yield (model(x)[:, 0] - y).square().mean() / 2

    (parameters,) = record(model, losses(), "parameters")
    squares = parameters.sort_values("step")["gradient_norm"].to_numpy() ** 2
    # The estimates are linear in the squares: those of the means are the means over the draws.
    of_small, of_large = float(np.mean(squares[::2])), float(np.mean(squares[1::2]))
    return estimate_signal_and_noise(of_small, of_large, SMALL, LARGE)
