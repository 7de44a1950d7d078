"""Shattered gradients: the correlation between samples' input gradients decays with depth."""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import nn

from analyses.statistics import theory
from published.networks import Together, freeze_statistics, plain_net, residual_net
from published.recording import record
from published.rows import Item, Row, Tolerance, compare

NETS = 20
TOGETHER = 5
"""Networks recorded in one run."""
SAMPLES = 256
WIDTH = 512
DEPTHS = (1, 2, 5, 10, 20)
BATCHNORM_DEPTHS = (1, 2, 3, 5)
RESIDUAL_DEPTHS = (10, 20)
BETAS = (1.0, 0.2)
CORRELATION = Tolerance(absolute=0.03)
VARIANCE = Tolerance(relative=0.05, errors=4)


def item() -> Item:
    """All four kinds of network of the paper."""
    return Item(
        paper="2  Balduzzi et al. 2017: correlation of samples' input gradients",
        setting=f"{NETS} nets, {SAMPLES} Gaussian samples, width {WIDTH}, L layers",
        tolerance=f"{CORRELATION}; on the variance {VARIANCE}",
        rows=tuple(_rows()),
    )


def _rows() -> Iterable[Row]:
    for depth in BATCHNORM_DEPTHS:
        correlations = [c for _, c in _measure(partial(plain_net, WIDTH, depth, batchnorm=True))]
        predicted = theory.batchnorm_plain_correlation(depth)
        yield compare(f"plain, BN, L={depth}", predicted, correlations, CORRELATION)
    for depth in DEPTHS:
        correlations = [c for _, c in _measure(partial(plain_net, WIDTH, depth))]
        predicted = theory.plain_correlation(depth)
        yield compare(f"plain, no BN, L={depth}", predicted, correlations, CORRELATION)
    for depth in RESIDUAL_DEPTHS:
        nets = _measure(partial(residual_net, WIDTH, depth, beta=1.0, batchnorm=False))
        predicted = theory.residual_correlation(depth)
        yield compare(f"residual, no BN, L={depth}", predicted, [c for _, c in nets], CORRELATION)
    for beta in BETAS:
        depth = RESIDUAL_DEPTHS[-1]
        nets = _measure(partial(residual_net, WIDTH, depth, beta=beta, batchnorm=True))
        variance, correlation = theory.batchnorm_residual_moments(depth, beta)
        name = f"residual, BN, L={depth}, beta={beta:g}"
        yield compare(name, correlation, [c for _, c in nets], CORRELATION)
        yield compare("  its variance, input / output", variance, [v for v, _ in nets], VARIANCE)


def _measure(build: Callable[[], nn.Sequential]) -> list[tuple[float, float]]:
    """Variance of the input gradient and correlation of samples, of each of `NETS` networks."""
    results = []
    for seed in range(NETS // TOGETHER):
        torch.manual_seed(seed)
        results += input_gradients(Together(build() for _ in range(TOGETHER)))
    return results


def input_gradients(nets: Together) -> list[tuple[float, float]]:
    """Mean square of the input gradient divided by the readout's, and correlation of samples.

    The tracer's channel squared mean of a gradient [N, C] is the mean of <g_i, g_j> / C over all
    pairs of samples, including i = j; its rms^2 is the mean over the pairs i = j.
    """
    x = torch.randn(len(nets), SAMPLES, WIDTH)
    freeze_statistics(nets, x)
    x.requires_grad_()
    losses = (nets(x).sum() for _ in range(1))
    inputs = [f"{net}.input" for net in range(len(nets))]
    (gradients,) = record(nets, losses, "gradients", observe=inputs)
    results = []
    for net, layer in enumerate(inputs):
        row = gradients.set_index("layer").loc[layer]
        squared = row["rms"] ** 2
        pairs = (SAMPLES * row["channel_squared_mean"] - squared) / (SAMPLES - 1)
        entering = nets.get_parameter(f"{net}.readout.weight").detach().square().mean()
        results.append((float(squared / entering), float(pairs / squared)))
    return results
