"""Quantiles and tails of Student's t, the normal, chi-square and binomial distributions."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from analyses.statistics import Array
from gradflow.conditions.chance import binomial_at_least


def student_quantile(p: float, degrees: float) -> float:
    """The value that Student's t with `degrees` of freedom stays below with probability `p`."""
    return float(_special().stdtrit(degrees, p))


def student_above(value: ArrayLike, degrees: float) -> Array:
    """P(T > value) for Student's t with `degrees` of freedom."""
    above: Array = _special().stdtr(degrees, -np.asarray(value, dtype=float))
    return above


def noncentral_student_below(value: float, degrees: float, shift: float) -> float:
    """P(T <= value) for the noncentral t of noncentrality `shift`."""
    return float(_special().nctdtr(degrees, shift, value))


def normal_quantile(p: float) -> float:
    """The value that a standard normal number stays below with probability `p`."""
    return float(_special().ndtri(p))


def chi_square_quantile(p: float, degrees: float) -> float:
    """The value that chi-square with `degrees` of freedom stays below with probability `p`."""
    return float(2 * _special().gammaincinv(degrees / 2, p))


def binomial_shares(trials: int, p: float) -> Array:
    """P(X = k) for k = 0 ... `trials` and X ~ Binomial(trials, p)."""
    k = np.arange(trials + 1)
    orders = (
        _special().gammaln(trials + 1)
        - _special().gammaln(k + 1)
        - _special().gammaln(trials - k + 1)
    )
    shares: Array = np.exp(orders + _special().xlogy(k, p) + _special().xlog1py(trials - k, -p))
    return shares


def fair_coin_quantile(p: float, trials: int) -> int:
    """The smallest k with P(X <= k) >= `p` for X ~ Binomial(trials, 1/2)."""
    below = 1 - binomial_at_least(np.arange(1, trials + 2), trials, 0.5)
    return int(np.searchsorted(below, p))


def sign_test(gained: int, lost: int) -> float:
    """Two-sided exact p-value that `gained` of `gained` + `lost` came up by a fair coin."""
    small, total = min(gained, lost), gained + lost
    if total == 0:
        return 1.0
    return min(1.0, 2 * float(_special().betainc(total - small, small + 1, 0.5)))


@cache
def _special() -> Any:
    # Takes a fifth of a second to load, during which other processes can draw figures already.
    from scipy import special  # noqa: PLC0415

    return special
