"""Turns means, as the statistics give them, into estimates, as findings show them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from analyses.result import Estimate
from analyses.statistics.means import Mean
from analyses.wording.numbers import finite

Scale = Callable[[float], float]


def as_percent(value: float) -> float:
    """A fraction in percent, or a difference of fractions in percentage points."""
    return 100 * value


def as_factor(value: float) -> float:
    """The factor whose natural logarithm is `value`."""
    with np.errstate(over="ignore"):
        return float(np.exp(value))


def estimate_of(
    name: str, mean: Mean | None, unit: str = "", scale: Scale = float, missing: str = ""
) -> Estimate:
    """`mean` as an estimate; `scale`, an increasing function, is applied to every number.

    `missing` says why there is no mean, if `mean` is None.
    """
    if mean is None:
        return Estimate(name, None, unit=unit, method=missing)
    value, low, high = (
        None if end is None else finite(scale(end)) for end in (mean.value, mean.low, mean.high)
    )
    return Estimate(name, value, low, high, unit, method=mean.method)


def share_of(name: str, mean: Mean) -> Estimate:
    """A share of a whole, from which noise was subtracted, in percent."""
    return replace(estimate_of(name, mean, "%", as_percent), of_whole=True)


def estimate_table(estimates: Mapping[str, Iterable[Estimate]]) -> pd.DataFrame:
    """The estimates of each network: columns network, quantity, value, 95 % low, 95 % high."""
    return pd.DataFrame(
        [
            {"network": network, "quantity": one.name, "value": one.value}
            | {"95 % low": one.low, "95 % high": one.high}
            for network, found in estimates.items()
            for one in found
        ]
    )
