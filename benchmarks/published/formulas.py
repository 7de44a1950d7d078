"""Closed forms of gradients and signals at initialization, each with its source.

All hold in expectation over the weights, most of them for wide networks only. A ReLU layer is a
matrix of independent Gaussian weights followed by ReLU; He's initialization is Var W = 2 / fan_in.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

RELU_VARIANCE = 1 - 1 / math.pi
"""Variance of W relu(z) with z normalized and W at He's initialization; its mean square is 1."""
DEFAULT_FACTOR = 1 / 6
"""Squared norm kept by a ReLU layer at PyTorch's default, Var W = 1 / (3 fan_in), both ways."""
DEFAULT_LINEAR_FACTOR = 1 / 3
"""The same in the linear regime (Glorot & Bengio 2010, section 4.2.1: n Var W, equation 15)."""


def coactivity(correlation: float) -> float:
    """k0: the share of active ReLUs that is active for both of two inputs, 1 - acos(r) / pi.

    Source: Cho & Saul 2009, the arc-cosine kernel of order 0; Balduzzi et al. 2017, section 3.
    """
    return 1 - math.acos(correlation) / math.pi


def relu_correlation(correlation: float) -> float:
    """k1: (sqrt(1 - r^2) + (pi - acos r) r) / pi, the correlation <x, y> / |x| |y| after ReLU.

    `correlation` is that of the pre-activations. Source: Cho & Saul 2009, the arc-cosine kernel of
    order 1.
    """
    angle = math.acos(correlation)
    return (math.sqrt(1 - correlation**2) + (math.pi - angle) * correlation) / math.pi


def plain_correlation(depth: int, correlation: float = 0.0) -> float:
    """Correlation of input gradients at two inputs, `depth` ReLU layers without normalization.

    prod k0(r_l), r_{l+1} = k1(r_l); r_0 is the `correlation` of the inputs.
    Source: Balduzzi et al. 2017, section 3, carried through the layers.
    """
    product = 1.0
    for _ in range(depth):
        product *= coactivity(correlation)
        correlation = relu_correlation(correlation)
    return product


def plain_batchnorm_correlation(depth: int) -> float:
    """The same with batch normalization before each ReLU: 2^-depth.

    Its statistics are constants in the backward pass. Source: Balduzzi et al. 2017, section 3.
    """
    return 0.5**depth


def residual_correlation(depth: int, correlation: float = 0.0) -> float:
    """The same for `depth` blocks x + W relu(x): prod (1 + k0(r_l)) / 2, r <- (r + k1(r)) / 2.

    Source: Balduzzi et al. 2017, section 3, carried through the layers.
    """
    product = 1.0
    for _ in range(depth):
        product *= (1 + coactivity(correlation)) / 2
        correlation = (correlation + relu_correlation(correlation)) / 2
    return product


def residual_batchnorm(depth: int, beta: float) -> tuple[float, float]:
    """Gradient variance, and correlation, for `depth` blocks x + beta W relu(BN(x)).

    With s_l^2 = 1 + (1 - 1/pi) beta^2 l, l = 0 ... depth - 1: the variance of the input gradient
    over that of the output's is prod (1 + beta^2 / s_l^2), the covariance between two inputs
    prod (1 + beta^2 / (2 s_l^2)). Source: Balduzzi et al. 2017, section 3, with the variance of a
    rectified Gaussian.
    """
    variance = covariance = 1.0
    for block in range(depth):
        gain = beta**2 / (1 + RELU_VARIANCE * beta**2 * block)
        variance *= 1 + gain
        covariance *= 1 + gain / 2
    return variance, covariance / variance


def path_length_shares(blocks: int, gain: float) -> NDArray[np.float64]:
    """Share of the gradient by paths of length 0 ... `blocks`: Binomial(blocks, a / (1 + a)).

    Every branch is a times its skip. Source: Veit et al. 2016, section 5; (1 + a)^n
    expanded.
    """
    lengths = np.arange(blocks + 1)
    shares: NDArray[np.float64] = binom(blocks, gain / (1 + gain)).pmf(lengths)
    return shares


def batchnorm_factor(batch: int) -> float:
    """Growth of the squared gradient norm per layer toward the input, with batch normalization.

    Wide ReLU layers, normalized over a batch B, gradient at the pre-activations before it:
    (B-1)(J'(c)+B-1) / ((B-3)(B-1)(1-J(c))) - 1/(B-3), with c = -1/(B-1), J = k1 and J' = k0.
    Source: Yang et al. 2019, theorem 8.
    """
    c = -1 / (batch - 1)
    numerator = (batch - 1) * (coactivity(c) + batch - 1)
    denominator = (batch - 3) * (batch - 1) * (1 - relu_correlation(c))
    return numerator / denominator - 1 / (batch - 3)


BATCHNORM_LIMIT = math.pi / (math.pi - 1)
"""Limit of `batchnorm_factor` for large batches."""


def branch_share(block: int) -> float:
    """Share of the branch in the mean square of skip + branch, of block 0, 1, ...: 1 / (l + 2).

    Blocks x + W relu(BN(x)) from mean square 1. Source: De & Smith 2020.
    """
    return 1 / (block + 2)


def centred_branch_share(block: int) -> float:
    """The same share of the channel variances: the branch adds 1 - 1/pi to 1 + (1 - 1/pi) l."""
    return RELU_VARIANCE / (1 + RELU_VARIANCE * (block + 1))


def he_log_deviation(layers: int, width: int) -> float:
    """Standard deviation of the log of a squared norm after ReLU layers: sqrt(5 sum 1/n_l).

    To first order in 1 / `width`. Source: Hanin 2018; each layer multiplies by a mean
    of n terms of mean 1 and variance 5.
    """
    return math.sqrt(5 * layers / width)


def regression_noise(inputs: int, distance: float, noise: float) -> tuple[float, float]:
    """|G|^2 and S = tr(covariance) of the per-sample gradients of linear least squares.

    Loss (x.v - e)^2 / 2 with x ~ N(0, I) of `inputs` entries, e ~ N(0, noise^2) and v, of length
    `distance`, the error of the weights: G = v, and E|x (x.v - e)|^2 = (d + 2)|v|^2 + d noise^2.
    Definitions of G and S: McCandlish et al. 2018, section 2.
    """
    squared = distance**2
    return squared, (inputs + 1) * squared + inputs * noise**2


def preactivation_signal(block: int) -> tuple[float, float]:
    """Channel squared mean and channel variance after block 0, 1, ... of pre-activation blocks.

    Branches end in a convolution of relu(BN(.)) at He's initialization: each adds 1/pi to the
    squared mean, from 0, and 1 - 1/pi to the variance, from 1.
    Source: Brock et al. 2021, section 3, with the moments of a rectified Gaussian.
    """
    return (block + 1) / math.pi, 1 + RELU_VARIANCE * (block + 1)


def transition_signal() -> tuple[float, float]:
    """The same after a transition, whose shortcut convolves relu(BN(x)) too: both are reset.

    Source: Brock et al. 2021, section 3.
    """
    return 2 / math.pi, 2 * RELU_VARIANCE
