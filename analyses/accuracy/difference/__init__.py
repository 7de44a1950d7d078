"""How far is the residual network ahead of the plain one?"""

from analyses.accuracy.difference.measure import (
    AccuracyDifference,
    accuracy_difference,
    matched_runs,
    split_by_length,
)

__all__ = ["AccuracyDifference", "accuracy_difference", "matched_runs", "split_by_length"]
