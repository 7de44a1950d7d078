"""Simulates experiments with known truth, and counts wrong verdicts on the accuracy jumps.

    python benchmarks/null_calibration.py

prints two tables. The first: how often "gradient health goes with the real change" is supported
without any link (it should be 5 % at most), and with a planted link (power). As in a report, both
use `analyses.accuracy.explanation.links.link` and `link_verdict`, with accuracies on 245 images
drawn one by one, and five quantities at two lags. The second: how often the 95 % intervals of
`analyses.accuracy.explanation.measure.decompose` contain the true shares.

Kinds of experiments without a link:
    levels: health and the logit of the accuracy are independent AR(1) series.
    changes: health and the changes of the logit are independent AR(1) series.
    swapped: health and logit are linked and have the same course in all seeds; then each accuracy
        curve is paired with the health of another seed.
"""

import argparse
import time

import numpy as np
import pandas as pd
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import NDArray

from analyses.accuracy.explanation.links import link, link_verdict, real_changes
from analyses.accuracy.explanation.measure import PARTS, decompose
from analyses.accuracy.explanation.question import ALPHA, STRONG
from analyses.accuracy.recalibration.measure import RecalibrationSeries
from analyses.result import Verdict
from analyses.statistics.associations_over_epochs import steady_learning_basis
from analyses.statistics.means import MIN_SEEDS
from analyses.statistics.proportions import wilson_interval

Array = NDArray[np.float64]

IMAGES = 245
QUANTITIES = 5
PLANTED = 0.8  # correlation of the innovations of one quantity with those of the changes
SEEDS_OF_TRUTH = 500
SPREAD = 1.5  # standard deviation of the images' difficulty, in logits


def ar1(phi: float, innovations: Array) -> Array:
    """Stationary AR(1) series of unit variance from standard normal innovations [..., epochs]."""
    series = np.empty_like(innovations)
    series[..., 0] = innovations[..., 0]
    for epoch in range(1, innovations.shape[-1]):
        fresh = np.sqrt(1 - phi**2) * innovations[..., epoch]
        series[..., epoch] = phi * series[..., epoch - 1] + fresh
    return series


def images_right(logits: Array, luck: Array, difficulty: Array) -> Array:
    """Is each image right? [epochs, images] from logits [epochs] and uniform `luck`."""
    return (luck < 1 / (1 + np.exp(difficulty - logits[:, None]))).astype(float)


def pair_from(logits: Array, stale: Array, generator: np.random.Generator) -> RecalibrationSeries:
    """A run whose running accuracy is off by `stale` logits; both series use the same luck."""
    luck = generator.random((len(logits), IMAGES))
    difficulty = SPREAD * generator.standard_normal(IMAGES)
    running, fresh = (images_right(x, luck, difficulty) for x in (logits + stale, logits))
    return RecalibrationSeries("", tuple(range(1, len(logits) + 1)), running, fresh)


def simulate(
    kind: str, phi: float, epochs: int, seeds: int, generator: np.random.Generator
) -> tuple[list[pd.DataFrame], list[pd.Series]]:
    """Health quantities and changes of accuracy of the seeds of one network."""
    innovations = generator.standard_normal((seeds, QUANTITIES, epochs))
    own = generator.standard_normal((seeds, epochs))
    health = ar1(phi, innovations)
    if kind in ("planted", "swapped"):
        own = PLANTED * innovations[:, 0] + np.sqrt(1 - PLANTED**2) * own
    logits = ar1(phi, own) if kind == "levels" else 0.6 * np.cumsum(ar1(phi, own), axis=1)
    logits -= logits.mean(axis=1, keepdims=True)
    if kind == "swapped":
        course = np.exp(-np.arange(epochs) / 4)
        health, logits = health + 3 * course, logits - 3 * course
        # One seed has no other: it gets the curve of a further one.
        logits = np.roll(logits, 1, axis=0) if seeds > 1 else _another(phi, epochs, generator)
    index = pd.RangeIndex(1, epochs + 1)
    names = [f"quantity {number}" for number in range(1, QUANTITIES + 1)]
    frames = [pd.DataFrame(one.T, index=index, columns=names) for one in health]
    pairs = [pair_from(one, np.zeros(epochs), generator) for one in logits]
    return frames, [real_changes(one) for one in pairs]


def _another(phi: float, epochs: int, generator: np.random.Generator) -> Array:
    changes = ar1(phi, generator.standard_normal((1, epochs)))
    logits = 0.6 * np.cumsum(changes, axis=1)
    course: Array = logits - logits.mean() - 3 * np.exp(-np.arange(epochs) / 4)
    return course


def fired(kind: str, phi: float, epochs: int, seeds: int, trials: int) -> int:
    """In how many of `trials` experiments the verdict is "supported"."""
    generator = np.random.default_rng([len(kind), int(10 * phi), epochs, seeds])
    verdicts = [
        link_verdict(link(*simulate(kind, phi, epochs, seeds, generator)), ALPHA, STRONG)
        for _ in range(trials)
    ]
    return verdicts.count(Verdict.SUPPORTED)


def true_parts(logits: Array, stale: Array) -> Array:
    """Expected [noise, stale, learning, jumps] of one run, averaged over the images' difficulty."""
    nodes, weights = hermegauss(60)
    weights = weights / weights.sum()
    running, real = (
        1 / (1 + np.exp(SPREAD * nodes - x[:, None])) for x in (logits + stale, logits)
    )
    spread = running * (1 - running)
    steps = np.diff(running, axis=0)
    moved, phi = steps @ weights, np.diff(real @ weights)
    noise = ((spread[1:] + spread[:-1] + steps**2) @ weights - moved**2).sum() / IMAGES
    along = float(((phi @ steady_learning_basis(len(phi))) ** 2).sum())
    whole = float(phi @ phi)
    return np.array([noise, float(moved @ moved) - whole, along, whole - along])


def setting(kind: str, epochs: int, generator: np.random.Generator) -> tuple[Array, Array]:
    """The logits of a seed, and their shift by stale statistics, for a mix of causes."""
    rise = 1.5 * np.log(np.arange(1, epochs + 1)) / np.log(epochs)
    jumps, pull = generator.standard_normal((2, epochs))
    scale = {"noise": (0, 0, 0), "stale": (1, 0, 1), "real": (1, 0.5, 0), "all": (1, 0.4, 0.6)}
    learning, real, stale = scale[kind]
    return learning * rise + real * jumps, -stale * np.abs(pull)


def coverage(kind: str, epochs: int, seeds: int, trials: int) -> Array:
    """For each part, the share of trials whose interval contains the truth.

    If the interval is over images, the truth is that of the seeds at hand. If it is over seeds, the
    truth is that of all seeds (of many drawn ones).
    """
    generator = np.random.default_rng([len(kind), epochs, seeds])
    others = SEEDS_OF_TRUTH if seeds >= MIN_SEEDS else 0
    every = [true_parts(*setting(kind, epochs, generator)) for _ in range(others)]
    held = np.zeros(len(PARTS))
    for _ in range(trials):
        runs = [setting(kind, epochs, generator) for _ in range(seeds)]
        parts = sum(every or [true_parts(*one) for one in runs])
        truth = parts / parts.sum()
        shares = decompose([pair_from(*one, generator) for one in runs]).shares
        # Rounding alone separates a share that is exactly 0 from its interval.
        held += [
            share.low - 1e-9 <= true <= share.high + 1e-9
            for share, true in zip(shares, truth, strict=True)
        ]
    return held / trials


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000, help="without a link, phi above 0")
    parser.add_argument("--few", type=int, default=300, help="with a link, and where phi is 0")
    parser.add_argument("--coverage", type=int, default=200, help="per row of the second table")
    arguments = parser.parse_args()
    start = time.perf_counter()
    print("| truth | phi | epochs | seeds | experiments | called linked | 95 % interval |")
    print("|---|---|---|---|---|---|---|")
    for kind in ("levels", "changes", "swapped", "planted"):
        for phi in (0.0, 0.5, 0.9):
            few = kind == "planted" or phi == 0
            trials = arguments.few if few else arguments.trials
            for epochs in (10, 30):
                for seeds in (1, 3, 5):
                    count = fired(kind, phi, epochs, seeds, trials)
                    low, high = wilson_interval(count, trials)
                    print(
                        f"| {kind} | {phi} | {epochs} | {seeds} | {trials:,} | "
                        f"{count / trials:.1%} | {low:.1%} to {high:.1%} |",
                        flush=True,
                    )
    print(f"\n| truth | epochs | seeds | experiments | {' | '.join(PARTS)} |")
    print("|---|---|---|---" + "|---" * len(PARTS) + "|")
    for kind in ("noise", "stale", "real", "all"):
        for epochs, seeds in ((10, 1), (10, 3), (10, 5), (30, 1), (30, 5)):
            held = coverage(kind, epochs, seeds, arguments.coverage)
            row = " | ".join(f"{share:.1%}" for share in held)
            print(f"| {kind} | {epochs} | {seeds} | {arguments.coverage} | {row} |", flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
