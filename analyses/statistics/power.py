"""How many seeds a paired comparison needs: exact power of the paired t-test."""

from dataclasses import dataclass

import numpy as np

from analyses.statistics.basics.distributions import (
    chi_square_quantile,
    noncentral_student_below,
    student_quantile,
)

ALPHA = 0.05
POWER = 0.8
MAX_SEEDS = 1_000_000


@dataclass(frozen=True)
class SeedsNeeded:
    """Smallest number of pairs of runs that reaches a power.

    Fields:
        value: at the measured standard deviation; None if more than a million are needed.
        low, high: at the ends of the interval of that standard deviation; None likewise.
    """

    value: int | None
    low: int | None
    high: int | None


def paired_power(seeds: int, difference: float, sd: float, alpha: float = ALPHA) -> float:
    """Probability that a two-sided paired t-test over `seeds` pairs finds `difference`.

    T has a noncentral t distribution with seeds - 1 degrees of freedom and noncentrality
    sqrt(seeds) |difference| / sd (Student's test under normal differences; Cohen 1988, section
    2.5, exact); 1 if sd is 0 and there is a difference.

    Raises `ValueError` for fewer than two seeds.
    """
    if seeds < 2:
        raise ValueError(f"a paired t-test needs at least 2 pairs of runs, not {seeds}")
    if sd == 0:
        return 1.0 if difference else alpha
    shift = seeds**0.5 * abs(difference) / sd
    critical = student_quantile(1 - alpha / 2, seeds - 1)
    if shift > 10 * critical + 40:  # scipy's noncentral t is inexact there, and the power is 1
        return 1.0
    above = 1 - noncentral_student_below(critical, seeds - 1, shift)
    below = noncentral_student_below(-critical, seeds - 1, shift)
    return float(np.clip(above + np.nan_to_num(below), 0.0, 1.0))


def seeds_for_power(
    difference: float, sd: float, power: float = POWER, alpha: float = ALPHA
) -> int | None:
    """Smallest number of pairs with at least `power`; None if it exceeds a million."""
    if difference == 0:
        return None
    low, high = 1, 2
    while paired_power(high, difference, sd, alpha) < power:
        low, high = high, 2 * high
        if low > MAX_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = paired_power(middle, difference, sd, alpha) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high


def sd_interval(sd: float, seeds: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a standard deviation from `seeds` normal values: chi-square, seeds - 1 degrees.

    Raises `ValueError` for fewer than two seeds.
    """
    if seeds < 2:
        raise ValueError(f"a standard deviation needs at least 2 values, not {seeds}")
    upper, lower = (chi_square_quantile(p, seeds - 1) for p in ((1 + level) / 2, (1 - level) / 2))
    return float(sd * ((seeds - 1) / upper) ** 0.5), float(sd * ((seeds - 1) / lower) ** 0.5)


def seeds_needed(
    difference: float, sd: float, seeds: int, power: float = POWER, alpha: float = ALPHA
) -> SeedsNeeded:
    """Seeds needed for `difference`; the interval follows from that of `sd`, measured on `seeds`.

    Raises `ValueError` for fewer than two seeds.
    """
    low, high = (seeds_for_power(difference, end, power, alpha) for end in sd_interval(sd, seeds))
    return SeedsNeeded(seeds_for_power(difference, sd, power, alpha), low, high)
