"""The paired difference in validation accuracy between a residual network and its plain one."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analyses.frames import correctness, predictions_of
from analyses.statistics import (
    MIN_SEEDS,
    Array,
    mean_over_steps,
    means_over_images,
    paired_change,
)
from analyses.wording import plural
from gradflow.runs.reader import Run

Right = NDArray[np.bool_]


@dataclass(frozen=True)
class Difference:
    """Accuracy of the residual network less that of the plain one, averaged over seeds.

    Fields:
        seeds: number of pairs of runs.
        value, low, high: mean difference with its 95 % interval, as fractions; the interval is
            None without predictions and with fewer than three seeds.
        p_value: exact McNemar test; None with several seeds or without predictions.
        method: how the interval was computed.
    """

    seeds: int
    value: float
    low: float | None
    high: float | None
    p_value: float | None
    method: str


def difference(pairs: list[tuple[Run, Run]], best: bool = False) -> Difference | None:
    """Compare pairs (plain, residual) at the last common epoch, or each run at its best epoch.

    On the same images where both recorded predictions, else by the scalar `val_accuracy`; None
    where neither is there.
    """
    scored = [scores for plain, residual in pairs if (scores := _same_images(plain, residual))]
    if scored:
        return _by_image([(_pick(first, best), _pick(second, best)) for first, second in scored])
    gaps = [_scalar_gap(plain, residual, best) for plain, residual in pairs]
    known = [gap for gap in gaps if gap is not None]
    return _by_seed(known, "no interval: no predictions on the same images") if known else None


def _same_images(plain: Run, residual: Run) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    if not (len(plain.predictions) and len(residual.predictions)):
        return None
    first, second = correctness(predictions_of(plain)), correctness(predictions_of(residual))
    epochs = first.index.intersection(second.index)
    images = first.columns.intersection(second.columns)
    if not (len(epochs) and len(images)):
        return None
    return first.loc[epochs, images], second.loc[epochs, images]


def _pick(right: pd.DataFrame, best: bool) -> Right:
    row = int(right.mean(axis=1).to_numpy().argmax()) if best else -1
    picked: Right = right.to_numpy(dtype=bool)[row]
    return picked


def _by_image(picked: list[tuple[Right, Right]]) -> Difference:
    gaps: list[Array] = [residual.astype(float) - plain for plain, residual in picked]
    means = [float(gap.mean()) for gap in gaps]
    if len(gaps) >= MIN_SEEDS:
        return _by_seed(means, "")
    resampled = [means_over_images(gap, seed=index) for index, gap in enumerate(gaps)]
    low, high = np.quantile(np.mean(resampled, axis=0), [0.025, 0.975])
    method = f"bootstrap over {plural(len(gaps[0]), 'validation image')}"
    if len(gaps) > 1:
        method += f" within each of {len(gaps)} seeds (too few to show how seeds differ)"
    test = paired_change(*picked[0]).p_value if len(gaps) == 1 else None
    return Difference(len(gaps), float(np.mean(means)), float(low), float(high), test, method)


def _by_seed(gaps: list[float], without: str) -> Difference:
    if len(gaps) < MIN_SEEDS:
        return Difference(len(gaps), float(np.mean(gaps)), None, None, None, without)
    mean = mean_over_steps([[gap] for gap in gaps])
    return Difference(len(gaps), float(np.mean(gaps)), mean.low, mean.high, None, mean.method)


def _scalar_gap(plain: Run, residual: Run, best: bool) -> float | None:
    scores: list[Any] = []
    for run in (plain, residual):
        if "val_accuracy" not in run.epochs.columns:
            return None
        scores.append(run.epochs.set_index("epoch")["val_accuracy"].dropna())
    if best:
        return float(scores[1].max() - scores[0].max()) if all(map(len, scores)) else None
    common = scores[0].index.intersection(scores[1].index)
    return float(scores[1][common[-1]] - scores[0][common[-1]]) if len(common) else None
