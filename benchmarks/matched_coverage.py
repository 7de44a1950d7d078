"""Simulates how often the intervals of the matched comparison contain a known difference.

    python benchmarks/matched_coverage.py --simulations 1000

Two networks on seeds x images x epochs: the probability that image i of seed s is classified
correctly depends on its difficulty, the epoch and the seed. The second network is better by a known
amount.
Prints a table of coverage with its Wilson interval.
"""

import argparse

import numpy as np
from scipy import stats

from analyses.accuracy.difference.measure import MEAN_ROW, MatchedRuns, difference_curve
from analyses.statistics import Array
from analyses.statistics.proportions import wilson_interval

IMAGES, POPULATION, EPOCHS = 245, 1225, 10
LEVEL = 0.55  # of the first network's accuracy
SEED_SPREADS = (0.0, 0.04)  # standard deviation between seeds of the true difference
DRIFT = 0.7  # correlation of a seed's difference from one epoch to the next


def simulate(
    generator: np.random.Generator, seeds: int, spread: float, difference: float
) -> list[MatchedRuns]:
    """One experiment; every seed validates on a random fifth of one population of images."""
    difficulty = generator.normal(size=POPULATION)
    runs = []
    for seed in range(seeds):
        images = np.sort(generator.choice(POPULATION, IMAGES, replace=False))
        noise = generator.standard_normal(EPOCHS)
        for epoch in range(1, EPOCHS):
            noise[epoch] = DRIFT * noise[epoch - 1] + (1 - DRIFT**2) ** 0.5 * noise[epoch]
        gaps = difference + spread * noise
        scores = [
            right_of(generator, difficulty[images], np.full(EPOCHS, LEVEL)),
            right_of(generator, difficulty[images], LEVEL + gaps),
        ]
        epochs = tuple(range(1, EPOCHS + 1))
        shown = tuple(int(image) for image in images)
        runs.append(MatchedRuns(str(seed), epochs, scores[0], scores[1], shown, True))
    return runs


def right_of(generator: np.random.Generator, difficulty: Array, accuracies: Array) -> Array:
    """Whether each image is classified correctly [epochs, images]; their means are `accuracies`."""
    own = generator.normal(size=(len(accuracies), len(difficulty)))
    # Half of the variance belongs to the image, half to the epoch and network.
    margin = stats.norm.ppf(accuracies)[:, None] * 2**0.5 - difficulty - own
    right: Array = (margin > 0).astype(float)
    return right


def coverage(seeds: int, spread: float, difference: float, simulations: int) -> list[str]:
    """A row of the table: coverage of the headline, of single epochs, and of the whole band."""
    generator = np.random.default_rng(seeds)
    headline, pointwise, band = [], [], []
    for _ in range(simulations):
        found = difference_curve(simulate(generator, seeds, spread, difference))
        assert found is not None
        off = np.abs(found.means.values - difference)
        headline.append(off[MEAN_ROW] <= (found.means.band_half_width(slice(EPOCHS, None)) or 0))
        pointwise.append(off[0] <= (found.means.band_half_width(slice(0, 1)) or 0))
        band.append(off[:EPOCHS].max() <= (found.means.band_half_width(slice(0, EPOCHS)) or 0))
    cells = []
    for hits in (headline, pointwise, band):
        low, high = wilson_interval(int(np.sum(hits)), simulations)
        cells.append(f"{np.mean(hits):.3f} ({low:.3f} to {high:.3f})")
    return [str(seeds), f"{100 * spread:g}", *cells]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--difference", type=float, default=0.10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 3, 5])
    options = parser.parse_args()
    print("| seeds | sd between seeds, points | mean over epochs | one epoch | band |")
    print("|---|---|---|---|---|")
    for seeds in options.seeds:
        for spread in SEED_SPREADS:
            row = coverage(seeds, spread, options.difference, options.simulations)
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
