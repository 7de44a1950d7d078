"""Are the recorded seeds enough to settle a difference between two networks?"""

import pandas as pd

from analyses.accuracy.difference.measure import MEAN_ROW
from analyses.reading.pairs import NetworkPair
from analyses.result import Estimate, Finding, Verdict
from analyses.statistics.power import paired_power, sd_interval, seeds_needed
from analyses.statistics.seeds_and_images import MeanOverSeeds
from analyses.statistics.verdicts import verdict_below
from analyses.wording.numbers import with_unit
from analyses.wording.phrases import plural, slug
from analyses.wording.translatable import Numeral, Said

NORMALITY_CAVEAT = (
    "The paired t-test and the interval of the standard deviation assume that the differences "
    "between seeds are normally distributed; a few seeds cannot show this."
)
MEASURED_SIZE_CAVEAT = (
    "The number of seeds for a difference of the measured size assumes that the measured size is "
    "the true one; it says no more than the p-value does (Hoenig & Heisey 2001). Plan with the "
    "smallest size worth finding."
)


def power_finding(
    pair: NetworkPair, means: MeanOverSeeds, smallest_difference: float, power: float, alpha: float
) -> Finding:
    """Do the recorded seeds find a difference of `smallest_difference` (a fraction) over epochs?

    The verdict compares the number of seeds with the interval of the number needed. It is
    inconclusive for one seed, which has no standard deviation between seeds.
    """
    size = with_unit(Numeral(f"{100 * smallest_difference:g}"), "percentage points", " ")
    name = Said("seeds needed to settle {size}", size=size)
    estimates = [_of_size(name, means, smallest_difference, power, alpha)]
    measured = abs(float(means.values[MEAN_ROW]))
    name = Said(
        "seeds needed to settle the measured {count} percentage points",
        count=Numeral(f"{100 * measured:.1f}"),
    )
    estimates.append(_of_size(name, means, measured, power, alpha))
    estimates.append(_of_sd(means))
    needed = estimates[0]
    shown = ("by-seed",) if means.seed_sd is None else ("power", "by-seed")
    verdict = verdict_below(needed.low, needed.high, means.seeds + 0.5)
    if needed.low is not None and needed.high is None and needed.low > means.seeds:
        verdict = Verdict.CONTRADICTED  # even the lower end is more than the recorded seeds
    return Finding(
        key=slug(f"enough-seeds-{pair.residual}"),
        network=None,
        hypothesis=Said(
            "{seeds} of {plain} and {residual} is enough to find a mean difference over epochs of "
            "{size}."
            if means.seeds == 1
            else "{seeds} of {plain} and {residual} are enough to find a mean difference over "
            "epochs of {size}.",
            seeds=plural(means.seeds, "seed"),
            plain=pair.plain,
            residual=pair.residual,
            size=size,
        ),
        contradicted_by="An interval of the seeds needed that lies above the recorded number.",
        verdict=verdict,
        estimates=tuple(estimates),
        threshold=(
            f"enough: a two-sided paired t-test at {alpha:g} finds it with a probability of "
            f"{power:g}; supported if the 95 % interval of the number of seeds needed ends at "
            f"or below {means.seeds}"
        ),
        meaning=_meaning(pair, means, needed, size, verdict),
        next_step=_next_step(needed, verdict),
        caveats=(NORMALITY_CAVEAT, MEASURED_SIZE_CAVEAT),
        evidence=tuple(slug(f"{name}-{pair.residual}") for name in shown),
    )


def power_table(
    curves: dict[str, MeanOverSeeds], smallest_difference: float, power: float, alpha: float
) -> pd.DataFrame:
    """One row per kind of statistics, quantity and size to settle; differences in points.

    Means over a single seed are left out.
    """
    rows = []
    for label, means in curves.items():
        if means.seed_sd is None:
            continue
        for quantity, row in (
            ("mean over epochs", MEAN_ROW),
            ("last epoch", len(means.values) - 2),
        ):
            sd = float(means.seed_sd[row])
            low, high = sd_interval(sd, means.seeds)
            sizes = {
                "smallest of interest": smallest_difference,
                "measured": abs(float(means.values[row])),
            }
            for which, size in sizes.items():
                needed = seeds_needed(size, sd, means.seeds, power, alpha)
                rows.append(
                    {
                        "statistics": label,
                        "quantity": quantity,
                        "to settle": f"{100 * size:.1f} points ({which})",
                        "sd between seeds": 100 * sd,
                        "sd, 95 % low": 100 * low,
                        "sd, 95 % high": 100 * high,
                        "sd from sampled images": 100 * float(means.image_sd[row]),
                        "seeds needed": count_text(needed.value),
                        "95 % interval": f"{count_text(needed.low)} to {count_text(needed.high)}",
                        "power of these seeds": paired_power(means.seeds, size, sd, alpha),
                    }
                )
    return pd.DataFrame(rows)


def count_text(count: int | None) -> str:
    """A number of seeds; None stands for more than a million."""
    return "over 1,000,000" if count is None else f"{count:,}"


def _of_size(name: str, means: MeanOverSeeds, size: float, power: float, alpha: float) -> Estimate:
    if means.seed_sd is None:
        return Estimate(name, None, unit="seeds", method="no interval: 1 seed shows no spread")
    needed = seeds_needed(size, float(means.seed_sd[MEAN_ROW]), means.seeds, power, alpha)
    counts = (needed.value, needed.low, needed.high)
    value, low, high = (None if count is None else float(count) for count in counts)
    beyond = "; a missing number is over 1,000,000" if None in counts else ""
    method = f"exact power of the paired t-test, sd between {means.seeds} seeds{beyond}"
    return Estimate(name, value, low, high, "seeds", method=method)


def _of_sd(means: MeanOverSeeds) -> Estimate:
    name = "standard deviation of the difference between seeds"
    if means.seed_sd is None:
        return Estimate(name, None, unit="percentage points", method="no interval: 1 seed")
    sd = float(means.seed_sd[MEAN_ROW])
    low, high = sd_interval(sd, means.seeds)
    method = f"chi-square interval, {plural(means.seeds - 1, 'degree')} of freedom"
    return Estimate(name, 100 * sd, 100 * low, 100 * high, "percentage points", method=method)


def _meaning(
    pair: NetworkPair, means: MeanOverSeeds, needed: Estimate, size: str, verdict: Verdict
) -> str:
    there = plural(means.seeds, "seed")
    if means.seed_sd is None:
        return (
            f"How many seeds would find a difference of {size} cannot be told: 1 seed shows no "
            "spread between seeds."
        )
    words = {
        Verdict.SUPPORTED: f"{there} are enough",
        Verdict.CONTRADICTED: f"{there} are too few",
        Verdict.INCONCLUSIVE: f"Whether {there} are enough cannot be told",
    }[verdict]
    counts = [None if end is None else int(end) for end in (needed.value, needed.low, needed.high)]
    number, low, high = (count_text(count) for count in counts)
    return (
        f"{words} to find a mean difference of {size} between {pair.residual} and {pair.plain}: "
        f"{number} are needed (95 % interval {low} to {high})."
    )


def _next_step(needed: Estimate, verdict: Verdict) -> str:
    if verdict is Verdict.SUPPORTED:
        return (
            "If these seeds do not show a difference of that size, take it to be absent or smaller."
        )
    if needed.value is None:
        return "Train 3 seeds or more: their spread tells how many seeds are needed."
    return (
        f"Train {count_text(int(needed.value))} seeds before a difference of that size is ruled "
        "out; more validation images help as far as the spread comes from sampled images."
    )
