"""Whether the units of a layer are dead, and not zero by chance."""

import numpy as np
from numpy.typing import NDArray

from gradflow.conditions.bounds import MAX_CHANCE
from gradflow.conditions.chance import binomial_at_least

Array = NDArray[np.float64]


def is_dead(
    counts: Array, total: Array, share: float, layers: int | None = None
) -> NDArray[np.bool_]:
    """Whether each layer is dead, and not by chance: `counts` of its `total` channels, [layers].

    Or whether one of `layers` layers is: then `counts` has a number for each step.
    """
    tail = binomial_at_least(counts, total, 0.5)
    by_chance = tail * (layers or len(total))  # Bonferroni, over layers
    ill: NDArray[np.bool_] = (counts == total) | (
        (counts / total > share) & (by_chance < MAX_CHANCE)
    )
    return ill
