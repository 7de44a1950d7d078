"""Reproduces published results about gradients with gradflow's tracer and probes.

    python benchmarks/published_results.py

Builds networks whose gradients or signals at initialization are known in closed form, records them
with the tracer, and compares the mean over networks with the formula. A row agrees if the
difference is within its tolerance. Prints one table; the exit status is 1 if a row disagrees.
"""

import sys

from published import (
    batchnorm,
    initialization,
    linear_regime,
    noise_scale,
    path_lengths,
    preactivation,
    shattering,
)
from published.rows import table

ITEMS = (
    shattering.item,
    path_lengths.item,
    batchnorm.connected_item,
    batchnorm.convolutional_item,
    preactivation.branch_item,
    initialization.item,
    linear_regime.item,
    noise_scale.item,
    preactivation.signal_item,
)


def main() -> int:
    """Measure every item, print the table, and return the exit status."""
    items = [item() for item in ITEMS]
    print(table(items))
    return int(not all(row.agrees for item in items for row in item.rows))


if __name__ == "__main__":
    sys.exit(main())
