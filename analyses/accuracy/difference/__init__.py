"""How far is the residual network ahead of the plain one?"""

from analyses.accuracy.difference.measure import (
    Difference,
    difference_of,
    equally_long,
    matched_runs,
)

__all__ = ["Difference", "difference_of", "equally_long", "matched_runs"]
