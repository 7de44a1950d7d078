"""Ranks of values, and what is made of few values: standard errors and adjusted p-values."""

import numpy as np
from numpy.typing import ArrayLike

from analyses.statistics import Array


def ranks(values: ArrayLike) -> Array:
    """Ranks along the last axis, from 1; equal values share their mean rank, NaN makes all NaN."""
    array = np.asarray(values, dtype=float)
    if array.size == 0:
        return np.empty(array.shape)
    order = np.argsort(array, axis=-1)
    ordered = np.take_along_axis(array, order, axis=-1)
    places = np.arange(array.shape[-1])
    differs = ordered[..., 1:] != ordered[..., :-1]
    edge = np.ones((*array.shape[:-1], 1), dtype=bool)
    starts, ends = np.concatenate([edge, differs], -1), np.concatenate([differs, edge], -1)
    first = np.maximum.accumulate(np.where(starts, places, 0), axis=-1)
    last = np.where(ends, places, places[-1])[..., ::-1]
    last = np.minimum.accumulate(last, axis=-1)[..., ::-1]
    ranked = np.empty(array.shape)
    np.put_along_axis(ranked, order, (first + last) / 2 + 1, axis=-1)
    ranked[np.isnan(array).any(axis=-1)] = np.nan
    return ranked


def standard_scores(values: Array) -> Array:
    """`values` of any shape less their mean along the last axis, over the standard deviation."""
    scores: Array = (values - values.mean(axis=-1, keepdims=True)) / values.std(
        axis=-1, keepdims=True
    )
    return scores


def rank_correlation(one: ArrayLike, other: ArrayLike) -> float:
    """Spearman's rho of two vectors."""
    return float(np.corrcoef(ranks(one), ranks(other))[1, 0])


def standard_error(values: Array) -> float:
    """The standard error of the mean of independent `values`."""
    return float(values.std(ddof=1) / len(values) ** 0.5)


def false_discovery_adjusted(p_values: ArrayLike) -> Array:
    """p-values adjusted by Benjamini & Hochberg 1995: the rate at which each would be called real.

    With p_(1) <= ... <= p_(m), the i-th is min over j >= i of p_(j) m / j.
    """
    given = np.asarray(p_values, dtype=float)
    order = np.argsort(given)
    count = len(given)
    scaled = given[order] * (count / np.arange(1, count + 1))
    adjusted = np.empty(count)
    adjusted[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return np.clip(adjusted, 0, 1)
