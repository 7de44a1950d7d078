"""Whether the units of a layer are dead, and not zero by chance."""

import numpy as np
from numpy.typing import NDArray

from gradflow.conditions.bounds import MAX_CHANCE

Array = NDArray[np.float64]


def is_dead(
    counts: Array, total: Array, share: float, layers: int | None = None
) -> NDArray[np.bool_]:
    """Whether each layer is dead, and not by chance: `counts` of its `total` channels, [layers].

    Or whether one of `layers` layers is: then `counts` has a number for each step.
    """
    from scipy.special import betainc  # noqa: PLC0415 - takes long, and only alerts need it there

    # P(X >= count) of X from Binomial(total, 1/2), by the incomplete beta function.
    some = np.maximum(counts, 1)
    tail = np.where(counts > 0, betainc(some, total - some + 1, 0.5), 1.0)
    by_chance = tail * (layers or len(total))  # Bonferroni, over layers
    ill: NDArray[np.bool_] = (counts == total) | (
        (counts / total > share) & (by_chance < MAX_CHANCE)
    )
    return ill
