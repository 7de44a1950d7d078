"""Which values of a group lie far from the others."""

import numpy as np
import numpy.typing as npt

from analyses.statistics import Array

FAR = 3.0  # interquartile ranges beyond the quartiles: Tukey's outer fences
LEAST_FACTOR = 2.0


def far_out(values: Array, least_factor: float = LEAST_FACTOR) -> npt.NDArray[np.bool_]:
    """Whether each positive value lies beyond the outer fences of the logarithms of all.

    The fences lie three interquartile ranges below the first quartile and above the third (Tukey
    1977, Exploratory data analysis, section 2D: "far out"). Where nearly all values are equal these
    are close together, so a value must also differ from the median by `least_factor`. Quartiles
    interpolate linearly. Values that are not positive and finite are not judged: False.
    """
    usable = np.isfinite(values) & (values > 0)
    found = np.zeros(len(values), dtype=bool)
    if not usable.any():
        return found
    logs = np.log(values[usable])
    low, middle, high = np.percentile(logs, [25, 50, 75])
    reach = FAR * (high - low)
    beyond = (logs < low - reach) | (logs > high + reach)
    found[usable] = beyond & (np.abs(logs - middle) >= np.log(least_factor))
    return found
