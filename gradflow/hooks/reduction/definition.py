"""The plain definition of each recorded statistic, as one pure function of a tensor.

x is a tensor of any shape with M elements; `channel_axis` is its axis of C channels. Every function
returns a 0-d tensor. `gradflow.hooks.reduction.fused` computes the same numbers in fewer passes and
is tested against these. Formulas and units are in `gradflow.runs.format.schema`.
"""

import torch
from torch import Tensor


def mean(x: Tensor) -> Tensor:
    """sum(x) / M."""
    return x.mean()


def std(x: Tensor) -> Tensor:
    """sqrt(sum((x - mean)^2) / M)."""
    return x.std(correction=0)


def rms(x: Tensor) -> Tensor:
    """sqrt(sum(x^2) / M)."""
    return x.square().mean().sqrt()


def norm(x: Tensor) -> Tensor:
    """sqrt(sum(x^2)), the L2 norm."""
    result: Tensor = torch.linalg.vector_norm(x)
    return result


def abs_max(x: Tensor) -> Tensor:
    """The largest |x|; nan if x contains nan."""
    return x.abs().max()


def kurtosis(x: Tensor) -> Tensor:
    """mean((x - mean)^4) / std^4, 3 for a normal distribution; nan if all elements are equal."""
    squares = (x - x.mean()).square()
    found = squares.square().mean() / squares.mean().square()
    return torch.where(x.max() == x.min(), torch.nan, found)


def zero_fraction(x: Tensor) -> Tensor:
    """count(x = 0) / M."""
    return (x == 0).to(x.dtype).mean()


def nonfinite(x: Tensor) -> Tensor:
    """count(x is nan or infinite)."""
    return (~torch.isfinite(x)).sum()


def dead_channels(x: Tensor, channel_axis: int) -> Tensor:
    """The number of channels in which every element is 0."""
    return (_channels(x, channel_axis) == 0).all(dim=1).sum()


def channel_squared_mean(x: Tensor, channel_axis: int) -> Tensor:
    """Mean over C of the squared channel mean (Brock et al. 2021)."""
    return _channels(x, channel_axis).mean(dim=1).square().mean()


def channel_variance(x: Tensor, channel_axis: int) -> Tensor:
    """Mean over C of the channel's variance, 1/n (Brock et al. 2021)."""
    return _channels(x, channel_axis).var(dim=1, correction=0).mean()


def inner_product(x: Tensor, y: Tensor) -> Tensor:
    """sum(x y), the inner product of two tensors of equal shape."""
    return torch.dot(x.reshape(-1), y.reshape(-1))


def _channels(x: Tensor, channel_axis: int) -> Tensor:
    """x as [C, M / C]."""
    return x.movedim(channel_axis, 0).reshape(x.shape[channel_axis], -1)
