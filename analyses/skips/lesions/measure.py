"""The accuracy that a network loses when blocks are deleted, by image and block."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.reading.predictions import predictions_of
from analyses.reading.probe_tables import last_epoch
from analyses.statistics import Array
from analyses.statistics.basics.distributions import normal_quantile
from analyses.statistics.basics.ranks import false_discovery_adjusted
from analyses.statistics.bootstrap import image_weights, means_over_images
from analyses.statistics.means import MIN_SEEDS, Mean, mean_over_steps
from analyses.statistics.proportions import paired_change
from analyses.wording.phrases import plural
from gradflow.runs.reading.run import Run

TABLE = "lesions"
FALSE_DISCOVERY_RATE = 0.05  # among the blocks of one run


@dataclass(frozen=True)
class Lesions:
    """One run at the last epoch at which its blocks were deleted.

    Fields:
        epoch: number of this epoch.
        correct: whether each image was classified correctly; rows sets of deleted blocks ("" for
            none) in order of the blocks, columns images.
        deleted: number of blocks that each row deletes.
        chance: accuracy of guessing, one over the number of classes.
    """

    epoch: int
    correct: pd.DataFrame
    deleted: pd.Series
    chance: float

    @property
    def intact(self) -> Array:
        """1 for each image that the intact network classifies correctly, else 0, shape [images]."""
        intact: Array = self.correct.loc[""].to_numpy(dtype=float)
        return intact

    @property
    def single_deletions(self) -> pd.DataFrame:
        """The rows of `correct` that delete one block."""
        return self.correct[(self.deleted == 1).to_numpy()]

    @property
    def cost(self) -> Array:
        """Accuracy lost by deleting one block, averaged over blocks, shape [images]."""
        cost: Array = self.intact - self.single_deletions.to_numpy(dtype=float).mean(axis=0)
        return cost


def lesions_of(run: Run) -> Lesions | None:
    """The deletions of `run`; None without the intact network or without any single deletion."""
    rows = last_epoch(predictions_of(run, TABLE))
    if not len(rows):
        return None
    # The intact network has an empty name, which may have been read as a missing value.
    rows = rows.assign(blocks=rows["blocks"].fillna("").astype(str))
    right = (rows["target"] == rows["prediction"]).astype(float)
    wide = rows.assign(right=right).drop_duplicates(["blocks", "image"], keep="last")
    table = wide.set_index(["blocks", "image"])["right"].unstack("image").dropna(axis=1)
    deleted = rows.drop_duplicates("blocks").set_index("blocks")["deleted"].astype(int)
    order = {name: place for place, name in enumerate(run.layers["layer"])}
    recorded = {name: place for place, name in enumerate(deleted.index)}
    names = sorted(
        table.index, key=lambda name: (order.get(name, len(order)), deleted[name], recorded[name])
    )
    if "" not in deleted.index or not (deleted == 1).any() or not table.shape[1]:
        return None
    return Lesions(
        epoch=int(rows["epoch"].iloc[0]),
        correct=table.loc[names].astype(bool),
        deleted=deleted.loc[names],
        chance=1 / max(rows["target"].nunique(), 1),
    )


def block_costs(seeds: list[Lesions], rate: float = FALSE_DISCOVERY_RATE) -> pd.DataFrame:
    """Accuracy lost by deleting each block, averaged over seeds: one row a block.

    Columns: block; cost, low, high; gained, lost: images, over all seeds; p_value: McNemar's exact
    test against the intact network, the largest of all seeds; adjusted: the same after Benjamini &
    Hochberg over the blocks of a run; real: whether adjusted is at most `rate` in every seed. Each
    seed is tested on its own validation images. Interval: Student's over three and more seeds,
    otherwise normal over the images of each seed.
    """
    blocks = [
        name
        for name in seeds[0].single_deletions.index
        if all(name in one.correct.index for one in seeds)
    ]
    tests = [[paired_change(one.intact, one.correct.loc[name]) for name in blocks] for one in seeds]
    adjusted = [false_discovery_adjusted([test.p_value for test in row]) for row in tests]
    rows = []
    for place, name in enumerate(blocks):
        losses = [one.intact - one.correct.loc[name].to_numpy(dtype=float) for one in seeds]
        mean = _mean_loss(losses)
        rows.append(
            {"block": name, "cost": mean.value, "low": mean.low, "high": mean.high}
            | {"gained": sum(row[place].gained for row in tests)}
            | {"lost": sum(row[place].lost for row in tests)}
            | {"p_value": max(row[place].p_value for row in tests)}
            | {"adjusted": float(max(row[place] for row in adjusted))}
        )
    frame = pd.DataFrame(rows)
    return frame.assign(real=frame["adjusted"] <= rate)


def _mean_loss(losses: list[Array]) -> Mean:
    if len(losses) >= MIN_SEEDS:
        return mean_over_steps([[loss.mean()] for loss in losses])
    variance = sum(float(loss.var()) / len(loss) for loss in losses) / len(losses) ** 2
    half = normal_quantile(0.975) * variance**0.5
    value = float(np.mean([loss.mean() for loss in losses]))
    return Mean(value, value - half, value + half, "normal interval over images")


def relative_cost(seeds: list[Lesions]) -> Mean:
    """Share of the accuracy above chance that deleting one block costs, averaged over blocks.

    Interval: Student's over three and more seeds, otherwise a bootstrap over images, with the same
    draws for the intact and the lesioned network. No interval if the intact accuracy may be chance.
    """
    above = [float(one.intact.mean()) - one.chance for one in seeds]
    if min(above) <= 0:
        return Mean(None, None, None, "the intact network is no better than chance")
    shares = [float(one.cost.mean()) / gap for one, gap in zip(seeds, above, strict=True)]
    if len(seeds) >= MIN_SEEDS:
        return mean_over_steps([[share] for share in shares])
    value, draws = float(np.mean(shares)), []
    for place, one in enumerate(seeds):
        weights = image_weights(len(one.cost), seed=place)
        gap = weights @ one.intact / len(one.intact) - one.chance
        if gap.min() <= 0:
            return Mean(value, None, None, "no interval: the intact accuracy may be chance")
        draws.append(weights @ one.cost / len(one.cost) / gap)
    low, high = np.quantile(np.mean(draws, axis=0), [0.025, 0.975])
    return Mean(value, float(low), float(high), _over_images(seeds))


def cost_difference(pairs: list[tuple[Lesions, Lesions]]) -> Mean:
    """Mean cost of deleting one block of the plain network less that of the residual one.

    `pairs` holds (plain, residual) of each seed. Interval as in `relative_cost`.
    """
    gaps = []
    for plain, residual in pairs:
        costs = [pd.Series(one.cost, index=one.correct.columns) for one in (plain, residual)]
        gaps.append((costs[0] - costs[1]).dropna().to_numpy(dtype=float))
    means = [float(gap.mean()) for gap in gaps]
    if len(gaps) >= MIN_SEEDS:
        return mean_over_steps([[mean] for mean in means])
    drawn = np.mean([means_over_images(gap, seed=place) for place, gap in enumerate(gaps)], axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Mean(float(np.mean(means)), float(low), float(high), _over_images([pairs[0][0]]))


def _over_images(seeds: list[Lesions]) -> str:
    return f"bootstrap over {plural(seeds[0].correct.shape[1], 'validation image')}"


def accuracy_by_number(seeds: list[Lesions]) -> pd.DataFrame:
    """Accuracy of every set of deleted blocks, all seeds: columns deleted, blocks, accuracy."""
    parts = [
        pd.DataFrame(
            {
                "deleted": one.deleted,
                "accuracy": one.correct.mean(axis=1),
                "blocks": one.correct.index,
            }
        )
        for one in seeds
    ]
    return pd.concat(parts, ignore_index=True)
