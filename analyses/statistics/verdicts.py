"""Verdicts from an interval and a bound."""

import numpy as np

from analyses.result import Verdict


def verdict_above(low: float | None, high: float | None, bound: float) -> Verdict:
    """Supported if the whole interval lies above `bound`, contradicted if below."""
    if low is None or high is None or not (np.isfinite(low) and np.isfinite(high)):
        return Verdict.INCONCLUSIVE
    if low > bound:
        return Verdict.SUPPORTED
    return Verdict.CONTRADICTED if high < bound else Verdict.INCONCLUSIVE


def verdict_below(low: float | None, high: float | None, bound: float) -> Verdict:
    """Supported if the whole interval lies below `bound`, contradicted if above."""
    swapped = {
        Verdict.SUPPORTED: Verdict.CONTRADICTED,
        Verdict.CONTRADICTED: Verdict.SUPPORTED,
        Verdict.INCONCLUSIVE: Verdict.INCONCLUSIVE,
    }
    return swapped[verdict_above(low, high, bound)]
