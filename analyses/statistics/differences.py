"""Intervals of the difference of two estimates that each have an interval."""

from collections.abc import Sequence

from analyses.statistics.means import MIN_SEEDS, Mean, mean_over_steps
from analyses.statistics.proportions import wilson_interval
from analyses.wording.phrases import plural


def difference_interval(
    first: tuple[float, float, float], second: tuple[float, float, float]
) -> tuple[float, float]:
    """Interval of a difference first - second from (value, low, high) of each.

    Zou & Donner 2008, Construction of confidence limits about effect measures (MOVER): the
    distance of each end is the root of the sum of squares of the two distances that cause it. The
    estimates are taken as independent: if they rest on the same images, the interval is too wide.
    With Wilson intervals of proportions it is method 10 of Newcombe 1998.
    """
    (a, a_low, a_high), (b, b_low, b_high) = first, second
    low = a - b - ((a - a_low) ** 2 + (b_high - b) ** 2) ** 0.5
    high = a - b + ((a_high - a) ** 2 + (b - b_low) ** 2) ** 0.5
    return low, high


def proportion_over_seeds(correct: Sequence[int], images: int) -> Mean:
    """A proportion averaged over seeds that predicted the same `images` images.

    With three seeds or more, Student's interval over seeds. With fewer, Wilson's interval at the
    mean count: the seeds share their images, so two seeds are no larger sample of images.
    """
    if len(correct) >= MIN_SEEDS:
        return mean_over_steps([[count / images] for count in correct])
    mean = sum(correct) / len(correct)
    low, high = wilson_interval(round(mean), images)
    return Mean(mean / images, low, high, f"Wilson interval on {plural(images, 'image')}")


def difference_over_seeds(first: Sequence[int], second: Sequence[int], images: int) -> Mean:
    """Difference first - second of two such proportions, with the seeds in the same order.

    With three seeds or more, Student's interval over their differences. With fewer,
    `difference_interval` of Wilson's intervals, which ignores that the images are the same.
    """
    if len(first) >= MIN_SEEDS:
        pairs = zip(first, second, strict=True)
        return mean_over_steps([[(one - other) / images] for one, other in pairs])
    ends = []
    for counts in (first, second):
        mean = sum(counts) / len(counts)
        ends.append((mean / images, *wilson_interval(round(mean), images)))
    low, high = difference_interval(ends[0], ends[1])
    method = f"Newcombe interval on {plural(images, 'image')}"
    return Mean(ends[0][0] - ends[1][0], low, high, method)
