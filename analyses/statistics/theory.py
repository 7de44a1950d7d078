"""Closed forms from the literature for gradients and signals at initialization.

They hold in expectation over random, independent weights, most of them for wide networks only.
Correlations are between the gradients of two inputs. "Per layer" means one weighted layer and the
ReLU after it. He's initialization is Var W = 2 / fan_in.
"""

import math

import numpy as np
from numpy.typing import NDArray

from analyses.statistics.basics.distributions import binomial_shares

PYTORCH_DEFAULT_GAIN = 1 / 3  # fan_in Var W of nn.Linear and nn.Conv2d as PyTorch draws them
HE_GAIN = 2.0  # fan_in Var W of He et al. 2015, Delving deep into rectifiers
RELU_VARIANCE = 1 - 1 / math.pi
"""Variance of W relu(z) with z normalized and W at He's initialization; its mean square is 1."""
BATCHNORM_GROWTH_LIMIT = math.pi / (math.pi - 1)
"""Limit of `batchnorm_growth` for large batches."""


def arc_cosine_kernel_0(correlation: float) -> float:
    """Correlation of ReLU's derivatives at unit Gaussians of `correlation`: 1 - acos(r) / pi.

    The arc-cosine kernel of degree 0 (Cho & Saul 2009); k0 in Balduzzi et al. 2017.
    """
    return float(1 - np.arccos(np.clip(correlation, -1, 1)) / np.pi)


def arc_cosine_kernel_1(correlation: float) -> float:
    """Uncentred correlation of ReLU's outputs at unit Gaussians of `correlation` r.

    (sqrt(1 - r^2) + (pi - acos r) r) / pi, the arc-cosine kernel of degree 1 (Cho & Saul 2009); k1
    in Balduzzi et al. 2017.
    """
    r = float(np.clip(correlation, -1, 1))
    return float((np.sqrt(1 - r**2) + (np.pi - np.arccos(r)) * r) / np.pi)


def relu_growth(gain: float) -> float:
    """Factor of the gradient's squared norm per ReLU layer toward the input: `gain` / 2.

    `gain` is Var W times the number of inputs of a unit, with layers of equal width: 2 at He
    initialization (factor 1), 1/3 at PyTorch's default (factor 1/6). Without normalization; the
    same factor holds for the signal's squared norm toward the output. He et al. 2015, Delving
    deep into rectifiers; Hanin 2018, How to start training.
    """
    return gain / 2


def he_log_deviation(layers: int, width: int) -> float:
    """Standard deviation of the log of a squared norm after ReLU layers: sqrt(5 sum 1/n_l).

    At He's initialization, for `layers` of equal `width`, to first order in 1 / `width`: each layer
    multiplies by a mean of n terms of mean 1 and variance 5. Hanin 2018, How to start training.
    """
    return math.sqrt(5 * layers / width)


def batchnorm_growth(batch: float) -> float:
    """Mean-field growth of a gradient's squared norm per layer toward the input.

    Fully connected batch-normalized ReLU network at initialization, wide, normalized over
    `batch` samples (more than 3): Yang et al. 2019, A mean field theory of batch normalization,
    theorem 8. Tends to `BATCHNORM_GROWTH_LIMIT`, 1.467, for large batches.
    """
    c = -1 / (batch - 1)
    slope = arc_cosine_kernel_0(c)
    first = (
        (batch - 1)
        * (slope + batch - 1)
        / ((batch - 3) * (batch - 1) * (1 - arc_cosine_kernel_1(c)))
    )
    return float(first - 1 / (batch - 3))


def plain_correlation(depth: int, correlation: float = 0.0) -> float:
    """Correlation of two inputs' gradients after `depth` ReLU layers without normalization.

    `correlation` is that of the inputs. The product of k0(rho_l) with rho_{l+1} = k1(rho_l):
    Balduzzi et al. 2017, The shattered gradients problem.
    """
    product = 1.0
    for _ in range(depth):
        product *= arc_cosine_kernel_0(correlation)
        correlation = arc_cosine_kernel_1(correlation)
    return product


def residual_correlation(depth: int, correlation: float = 0.0) -> float:
    """`plain_correlation` for `depth` residual blocks x + W relu(x) without normalization.

    The product of (1 + k0(rho_l)) / 2 with rho_{l+1} = (rho_l + k1(rho_l)) / 2.
    """
    product = 1.0
    for _ in range(depth):
        product *= (1 + arc_cosine_kernel_0(correlation)) / 2
        correlation = (correlation + arc_cosine_kernel_1(correlation)) / 2
    return product


def batchnorm_plain_correlation(depth: int) -> float:
    """`plain_correlation` with batch normalization: 2^-`depth` (Balduzzi et al. 2017).

    Batch statistics are taken as constants in the backward pass.
    """
    return float(0.5**depth)


def batchnorm_residual_moments(depth: int, branch_scale: float = 1.0) -> tuple[float, float]:
    """Variance of the gradient, and correlation of two, after blocks x + beta W relu(BN(x)).

    The variance is given as input over output. With s_l^2 = 1 + (1 - 1/pi) beta^2 l,
    l = 0 ... `depth` - 1 and beta the scale of the branch: variance prod(1 + beta^2 / s_l^2),
    covariance prod(1 + beta^2 / (2 s_l^2)). Balduzzi et al. 2017.
    """
    beta = branch_scale**2
    scale = 1 + RELU_VARIANCE * beta * np.arange(depth)
    variance, covariance = np.prod(1 + beta / scale), np.prod(1 + beta / (2 * scale))
    return float(variance), float(covariance / variance)


def path_length_shares(blocks: int, gain: float) -> NDArray[np.float64]:
    """Share of the gradient along paths of length 0 ... `blocks`: Binomial(blocks, a / (1 + a)).

    Every branch multiplies by a = `gain` relative to its skip: the terms of (1 + a)^n. Veit et al.
    2016, Residual networks behave like ensembles.
    """
    return binomial_shares(blocks, gain / (1 + gain))


def branch_share(block: int) -> float:
    """Share of the branch in the mean square of skip + branch, in block l = 0, 1, ...: 1 / (l + 2).

    For blocks x + W relu(BN(x)) and an input of mean square 1: before block l the mean square is
    l + 1, and the branch adds 1.
    De & Smith 2020, Batch normalization biases residual blocks towards the identity function.
    """
    return 1 / (block + 2)


def centred_branch_share(block: int) -> float:
    """`branch_share` of the channel variance: the branch adds 1 - 1/pi to 1 + (1 - 1/pi) l."""
    return RELU_VARIANCE / (1 + RELU_VARIANCE * (block + 1))


def preactivation_signal(block: int) -> tuple[float, float]:
    """Channel squared mean and channel variance after block 0, 1, ... of pre-activation blocks.

    Branches end in a convolution of relu(BN(.)) at He's initialization: each adds 1/pi to the
    squared mean, from 0, and 1 - 1/pi to the variance, from 1, the moments of a rectified Gaussian.
    Brock et al. 2021, Characterizing signal propagation.
    """
    return (block + 1) / math.pi, 1 + RELU_VARIANCE * (block + 1)


def transition_signal() -> tuple[float, float]:
    """As `preactivation_signal`, after a transition: its skip convolves relu(BN(x)) too."""
    return 2 / math.pi, 2 * RELU_VARIANCE


def regression_noise(inputs: int, distance: float, noise: float) -> tuple[float, float]:
    """|G|^2 and S = tr(covariance) of the per-sample gradients of linear least squares.

    Loss (x.v - e)^2 / 2 with x ~ N(0, I) of `inputs` entries, e ~ N(0, noise^2) and v, of length
    `distance`, the error of the weights: G = v, and E|x (x.v - e)|^2 = (d + 2)|v|^2 + d noise^2.
    Definitions of G and S: McCandlish et al. 2018, An empirical model of large-batch training.
    """
    squared = distance**2
    return squared, (inputs + 1) * squared + inputs * noise**2
