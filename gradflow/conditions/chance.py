"""How likely a count is by chance."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def binomial_at_least(count: ArrayLike, trials: ArrayLike, p: float) -> Any:
    """P(X >= count) for X ~ Binomial(trials, p), of the shape that both are broadcast to."""
    from scipy.special import betainc  # noqa: PLC0415 - takes long, and few callers need it

    k, n = np.broadcast_arrays(np.asarray(count, dtype=float), np.asarray(trials, dtype=float))
    inside = (k > 0) & (k <= n)
    # Of a count outside the incomplete beta function knows nothing.
    tail = betainc(np.where(inside, k, 1.0), np.where(inside, n - k + 1, 1.0), p)
    return np.where(inside, tail, np.where(np.isnan(k), k, k <= 0))
