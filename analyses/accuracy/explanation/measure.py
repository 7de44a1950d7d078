"""Splits the epoch-to-epoch movement of validation accuracy into parts that add up to 1."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analyses.accuracy.recalibration import RecalibrationSeries
from analyses.statistics import Array
from analyses.statistics.associations_over_epochs import steady_learning_basis
from analyses.statistics.basics.distributions import student_quantile
from analyses.statistics.bootstrap import RESAMPLES, image_weights
from analyses.statistics.means import MIN_SEEDS
from analyses.wording.phrases import plural
from analyses.wording.translatable import message

MIN_CHANGES_TO_SPLIT = 6  # per run; with fewer, steady learning and jumps are one part
NOISE = message("sampling noise")
STALE = message("stale statistics")
LEARNING = message("steady learning")
JUMPS = message("real jumps")
REAL = message("real change")  # learning and jumps together, if they are not separated
PARTS = (NOISE, STALE, LEARNING, JUMPS)


@dataclass(frozen=True)
class Share:
    """A part of the movement: its name and its share with a 95 % interval (None if unknown)."""

    name: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Decomposition:
    """The parts of the movement of validation accuracy of one network.

    Fields:
        movement: sum of squared changes of accuracy over epochs and seeds.
        shares: they add up to 1; empty if accuracy does not move at all. A share below 0 or above 1
            is noise of the estimate, or comes from re-estimation that adds movement.
        changes, images, seeds: their numbers; images are those of the first seed.
        method: how the intervals were computed.
    """

    movement: float
    shares: tuple[Share, ...]
    changes: int
    images: int
    seeds: int
    method: str

    def share(self, name: str) -> Share | None:
        """The share called `name`; None if it is not separated from others."""
        return next((one for one in self.shares if one.name == name), None)

    @property
    def real(self) -> Share | None:
        """The share of real jumps, or of real change if steady learning is not separated."""
        return self.share(JUMPS) or self.share(REAL)


@dataclass(frozen=True)
class _Changes:
    """Changes of accuracy of one series, split into steady learning (first) and the rest.

    Fields:
        images: 1 for an image gained, -1 for one lost, else 0: shape [changes, images].
        course: orthonormal basis of steady learning, shape [changes, 2].
        noise: sampling variance summed over changes: [course, rest].
    """

    images: Array
    course: Array
    noise: Array

    def squares(self, changes: Array) -> Array:
        """Squared movement of steady learning and of the rest: [..., changes] to [..., 2]."""
        along = ((changes @ self.course) ** 2).sum(axis=-1)
        parts: Array = np.stack([along, (changes**2).sum(axis=-1) - along], axis=-1)
        return parts

    def shrunk(self) -> Array:
        """The changes, shrunk to the squared movement without its noise."""
        changes = self.images.mean(axis=1)
        squares = self.squares(changes)
        left = np.maximum(squares - self.noise, 0)
        scale = np.sqrt(np.divide(left, squares, out=np.zeros(2), where=squares > 1e-12))
        along = self.course @ (self.course.T @ changes)
        shrunk: Array = scale[0] * along + scale[1] * (changes - along)
        return shrunk


def decompose(series: Sequence[RecalibrationSeries], re_estimated: bool = True) -> Decomposition:
    """Split the squared movement of accuracy T = sum of delta^2 over epochs and seeds into parts.

    delta is the change of accuracy with running statistics, phi that with re-estimated ones, v the
    sampling variance of a paired difference (see `PairedChange.variance`):
        sampling noise: sum of v(delta).
        stale statistics: what re-estimation removes, sum of delta^2 - v(delta) - (phi^2 - v(phi)).
        steady learning: the part of phi along its least-squares fit a + b/k, k the number of the
            change within its run: squared, less the sampling variance along the fit.
        real jumps: the rest of phi: squared, less the sampling variance of that rest.
    Each estimate is unbiased, and the parts add up to T exactly. If a run has fewer than six
    changes, learning and jumps are one part. If statistics were not re-estimated (`re_estimated`
    false, and the two series are the same), there is no part of stale statistics: what they add
    counts as real.

    Intervals with three seeds or more: Student's over seeds, of the ratio by linearization (Cochran
    1977, Sampling techniques). They include the variation of both seeds and images, and are about
    other seeds. A bootstrap over so few seeds would be too narrow. Even so, the share of steady
    learning, skewed over seeds, is covered less often than 95 % (see benchmarks/RESULTS.md).
    Intervals with fewer seeds: bootstrap over images within seeds, with the same images in both
    series and all epochs. It resamples around changes that are shrunk to the movement without
    noise, since a resample adds noise once more.
    """
    rows = np.stack([_parts(*_both_changes(one)) for one in series])
    changes = [len(one.epochs) - 1 for one in series]
    keep = _kept_apart(re_estimated, min(changes) >= MIN_CHANGES_TO_SPLIT)
    movement = float(rows.sum())
    values, low, high, method = np.zeros(4), None, None, "accuracy does not move"
    if movement > 0:
        values = rows.sum(axis=0) / movement
        low, high, method = (
            _over_seeds(rows, keep) if len(series) >= MIN_SEEDS else _over_images(series, keep)
        )
    shares = tuple(
        Share(
            name,
            float(values[list(parts)].sum()),
            None if low is None else float(low[index]),
            None if high is None else float(high[index]),
        )
        for index, (name, parts) in enumerate(keep.items())
    )
    return Decomposition(
        movement=movement,
        shares=shares if movement > 0 else (),
        changes=sum(changes),
        images=series[0].running.shape[1],
        seeds=len(series),
        method=method,
    )


def _kept_apart(re_estimated: bool, split: bool) -> dict[str, tuple[int, ...]]:
    """The shares to report, each with the indices of its parts."""
    kept: dict[str, tuple[int, ...]] = {NOISE: (0,)}
    if re_estimated:
        kept[STALE] = (1,)
    return kept | ({LEARNING: (2,), JUMPS: (3,)} if split else {REAL: (2, 3)})


def _both_changes(one: RecalibrationSeries) -> tuple[_Changes, _Changes]:
    return _changes(one.running), _changes(one.re_estimated)


def _changes(right: Array) -> _Changes:
    images = np.diff(right, axis=0)
    course = steady_learning_basis(len(images))
    deviations = (images - images.mean(axis=1, keepdims=True)) / images.shape[1]
    along = float(((course.T @ deviations) ** 2).sum())
    return _Changes(images, course, np.array([along, (deviations**2).sum() - along]))


def _parts(running: _Changes, fresh: _Changes) -> Array:
    """The four parts of the movement of one run."""
    moved = running.squares(running.images.mean(axis=1))
    real = fresh.squares(fresh.images.mean(axis=1)) - fresh.noise
    return _amounts(moved.sum(), running.noise, real)


def _amounts(moved: Array, noise: Array, real: Array) -> Array:
    """[noise, stale, learning, jumps] from total movement [...] and real movement [..., 2]."""
    sampled = np.broadcast_to(noise.sum(), moved.shape)
    stale = moved - sampled - real.sum(axis=-1)
    return np.stack([sampled, stale, real[..., 0], real[..., 1]], axis=-1)


def _over_images(
    series: Sequence[RecalibrationSeries], keep: dict[str, tuple[int, ...]]
) -> tuple[Array, Array, str]:
    drawn = np.zeros((RESAMPLES, 4))
    for seed, one in enumerate(series):
        running, fresh = _both_changes(one)
        count = one.running.shape[1]
        weights = image_weights(count, RESAMPLES, seed) / count - 1 / count
        moved = running.squares(running.shrunk() + weights @ running.images.T).sum(axis=-1)
        real = fresh.squares(fresh.shrunk() + weights @ fresh.images.T) - fresh.noise
        drawn += _amounts(moved, running.noise, real)
    total = drawn.sum(axis=1, keepdims=True)
    ratios = np.divide(drawn, total, out=np.zeros_like(drawn), where=total > 0)
    kept = np.stack([ratios[:, list(parts)].sum(axis=1) for parts in keep.values()])
    low, high = np.quantile(kept, [0.025, 0.975], axis=1)
    images = plural(series[0].running.shape[1], "image")
    return low, high, f"bootstrap over {images} in {plural(len(series), 'seed')}"


def _over_seeds(rows: Array, keep: dict[str, tuple[int, ...]]) -> tuple[Array, Array, str]:
    seeds = len(rows)
    kept = np.stack([rows[:, list(parts)].sum(axis=1) for parts in keep.values()], axis=1)
    total = rows.sum(axis=1)
    ratio = kept.sum(axis=0) / total.sum()
    residuals = (kept - ratio * total[:, None]) / total.mean()
    error = np.sqrt((residuals**2).sum(axis=0) / (seeds - 1) / seeds)
    half = student_quantile(0.975, seeds - 1) * error
    return ratio - half, ratio + half, f"Student interval over {seeds} seeds"
