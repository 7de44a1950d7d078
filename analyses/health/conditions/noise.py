"""Whether the gradients of one run are mostly noise."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.health.condition import Answer, Bounds, Condition, NotAsked
from analyses.health.readings import Reading, is_beyond
from analyses.result import Verdict
from analyses.statistics.verdicts import verdict_above
from analyses.wording.numbers import number
from analyses.wording.phrases import plural
from gradflow.runs.reading.run import Run


@dataclass(frozen=True)
class NoiseBounds(Bounds):
    """Bounds of the condition of this module.

    Fields:
        noisy: for the gradient noise scale over the batch size.
    """

    noisy: float = 100.0


def noise_answer(run: Run, noisy: float) -> Answer:
    """Whether the gradient of a batch is mostly noise; not asked if that was not recorded.

    B_simple = S / |G|^2 (McCandlish et al. 2018) over the batch size is compared with `noisy`. S
    and |G|^2 are averaged over the draws of the last epoch before dividing. The interval is a
    leave-one-out jackknife. Where the spread of the draws allows a |G|^2 of 0, the noise scale has
    no upper end, and its lower one is S over the upper end of |G|^2.
    """
    table = run.table("noise_scale")
    if not len(table) or not len(run.gradients):
        return NotAsked("noisy", "the probe of the noise scale did not run")
    batch = float(run.gradients["batch_size"].median())
    by_epoch = {epoch: _noise_over_batch(rows, batch) for epoch, rows in table.groupby("epoch")}
    value, low, high = by_epoch[max(by_epoch)]
    early = by_epoch[min(by_epoch)][0]
    draws = int((table["epoch"] == table["epoch"].max()).sum())
    note = ""
    least = _at_least(table[table["epoch"] == table["epoch"].max()], batch)
    verdict = verdict_above(low, high, noisy)
    if value is None:
        note, value = "The estimate of the squared gradient is not positive.", least
    if least is not None:
        low, high = None, None
        verdict = Verdict.SUPPORTED if least > noisy else Verdict.INCONCLUSIVE
        note += f" The draws allow a squared gradient of 0: the ratio is at least {number(least)}."
    return Reading(
        "noisy",
        verdict,
        "gradient noise scale over the batch size",
        "",
        value,
        low,
        high,
        early,
        is_beyond(early, noisy, above=True),
        noisy,
        f"above {number(noisy)}",
        f"ratio of means over {plural(draws, 'draw')} at the last epoch's end, jackknife interval",
        note.strip(),
    )


def _noise_over_batch(
    rows: pd.DataFrame, batch: float
) -> tuple[float | None, float | None, float | None]:
    """The ratio with its 95 % interval; None if the squared gradient is not above 0."""
    noise = rows["noise"].to_numpy(dtype=float)
    signal = rows["squared_gradient"].to_numpy(dtype=float)
    count = len(rows)
    if not count or not np.isfinite([noise.sum(), signal.sum()]).all() or signal.mean() <= 0:
        return None, None, None
    value = float(noise.mean() / signal.mean() / batch)
    rest = signal.sum() - signal
    if count < 3 or (rest <= 0).any():
        return value, None, None
    without = (noise.sum() - noise) / rest / batch
    spread = float(np.sqrt((count - 1) * np.var(without)))
    return value, value - 1.96 * spread, value + 1.96 * spread


def _at_least(rows: pd.DataFrame, batch: float) -> float | None:
    """The least noise scale over the batch size that the draws allow, if they allow a |G|^2 of 0.

    None if they do not, or if they are too few to tell.
    """
    noise = rows["noise"].to_numpy(dtype=float)
    signal = rows["squared_gradient"].to_numpy(dtype=float)
    if len(rows) < 3 or not np.isfinite([noise.sum(), signal.sum()]).all() or noise.mean() <= 0:
        return None
    off = 1.96 * signal.std(ddof=1) / np.sqrt(len(rows))
    if signal.mean() > off or signal.mean() + off <= 0:
        return None
    return float(noise.mean() / (signal.mean() + off) / batch)


def _read(run: Run, bounds: NoiseBounds) -> list[Answer]:
    return [noise_answer(run, bounds.noisy)]


NOISY = Condition(
    key="noisy",
    hypothesis="The gradients[ of {}] are mostly noise at this batch size.",
    holds="the gradients are mostly noise at this batch size",
    fails="the gradients are not mostly noise at this batch size",
    unknown="it cannot be told whether the gradients are mostly noise at this batch size",
    contradicted_by="A noise scale over the batch size whose interval lies below the bound.",
    next_step="Try a larger batch or a smaller learning rate.",
    to_ask="Train with gradflow train --probes noise_scale, or run gradflow probe on such a run.",
    source="McCandlish et al. 2018, An empirical model of large-batch training",
    read=_read,
    bound="noisy",
    method="Noisy: the gradient noise scale S / |G|^2 over the batch size.",
    spoils=False,
    harmless=True,
    needed=False,
)
