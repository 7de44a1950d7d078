"""Closed forms of the literature for gradients at initialization, to set measurements beside.

All hold for wide networks with random, independent weights. Correlations are between the gradients
of two inputs, "per layer" means one weighted layer with the ReLU that follows it.
"""

from itertools import accumulate, repeat

import numpy as np

PYTORCH_DEFAULT_GAIN = 1 / 3  # fan_in Var W of nn.Linear and nn.Conv2d as PyTorch draws them
HE_GAIN = 2.0  # fan_in Var W of He et al. 2015, Delving deep into rectifiers, equation 10


def kernel_slope(correlation: float) -> float:
    """Correlation of ReLU's derivatives at unit Gaussians of `correlation`: 1 - acos(r) / pi.

    The arc-cosine kernel of degree 0: Cho & Saul 2009, equation 6; k0 in Balduzzi et al. 2017.
    """
    return float(1 - np.arccos(np.clip(correlation, -1, 1)) / np.pi)


def kernel(correlation: float) -> float:
    """Uncentred correlation of ReLU's outputs at unit Gaussians of `correlation` r.

    (sqrt(1 - r^2) + (pi - acos r) r) / pi, the arc-cosine kernel of degree 1: Cho & Saul 2009,
    equation 7; k1 in Balduzzi et al. 2017.
    """
    r = float(np.clip(correlation, -1, 1))
    return float((np.sqrt(1 - r**2) + (np.pi - np.arccos(r)) * r) / np.pi)


def relu_growth(gain: float) -> float:
    """Factor of the gradient's squared norm per ReLU layer toward the input: `gain` / 2.

    `gain` is Var W times the number of inputs of a unit where layers are equally wide: 2 at He
    initialization (factor 1), 1/3 at PyTorch's default (factor 1/6). Without normalization: He et
    al. 2015, Delving deep into rectifiers, section 2.2; Hanin 2018, How to start training.
    """
    return gain / 2


def batchnorm_growth(batch: float) -> float:
    """Mean-field growth of a gradient's squared norm per layer toward the input.

    Fully connected batch-normalized ReLU network at initialization, wide, normalized over
    `batch` samples (more than 3): Yang et al. 2019, A mean field theory of batch normalization,
    theorem 8. Tends to pi / (pi - 1) = 1.467 for large batches.
    """
    c = -1 / (batch - 1)
    slope = kernel_slope(c)
    first = (batch - 1) * (slope + batch - 1) / ((batch - 3) * (batch - 1) * (1 - kernel(c)))
    return float(first - 1 / (batch - 3))


def plain_correlation(depth: int, correlation: float = 0.0) -> float:
    """Correlation of two inputs' gradients after `depth` ReLU layers without normalization.

    `correlation` is that of the inputs. The product of k0(rho_l) with rho_{l+1} = k1(rho_l):
    Balduzzi et al. 2017, The shattered gradients problem, section 3.
    """
    rhos = accumulate(repeat(None, depth - 1), lambda rho, _: kernel(rho), initial=correlation)
    return float(np.prod([kernel_slope(rho) for rho in rhos])) if depth else 1.0


def residual_correlation(depth: int, correlation: float = 0.0) -> float:
    """As `plain_correlation`, for `depth` residual blocks x + branch without normalization.

    The product of (1 + k0(rho_l)) / 2 with rho_{l+1} = (rho_l + k1(rho_l)) / 2.
    """
    rhos = accumulate(
        repeat(None, depth - 1), lambda rho, _: (rho + kernel(rho)) / 2, initial=correlation
    )
    return float(np.prod([(1 + kernel_slope(rho)) / 2 for rho in rhos])) if depth else 1.0


def batchnorm_plain_correlation(depth: int) -> float:
    """As `plain_correlation`, with batch normalization: 2^-`depth` (Balduzzi et al. 2017, th. 3).

    Batch statistics are taken as constants in the backward pass.
    """
    return float(0.5**depth)


def batchnorm_residual_moments(depth: int, branch_scale: float = 1.0) -> tuple[float, float]:
    """Variance of the gradient, and correlation of two, after residual blocks normalized by batch.

    With s_l^2 = 1 + (1 - 1/pi) beta^2 l, l = 0 ... `depth` - 1 and beta the scale of the branch:
    variance prod(1 + beta^2 / s_l^2), covariance prod(1 + beta^2 / (2 s_l^2)). Balduzzi et al.
    2017, section 3.2.
    """
    beta = branch_scale**2
    scale = 1 + (1 - 1 / np.pi) * beta * np.arange(depth)
    variance, covariance = np.prod(1 + beta / scale), np.prod(1 + beta / (2 * scale))
    return float(variance), float(covariance / variance)
