"""Planted costs of deleted blocks, compared with scipy and with counts by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analyses.registry import NotApplicableError
from analyses.result import Verdict
from analyses.skips.lesions.measure import (
    Lesions,
    accuracy_by_number,
    block_costs,
    cost_difference,
    lesions_of,
    relative_cost,
)
from analyses.skips.lesions.question import ANALYSIS

IMAGES = 100


def lesion_rows(intact, costs, several=(), epoch=1):
    """`intact` images are correct; deleting block i loses the first costs[i] of them."""
    rows = []
    sets = {"": 0} | {f"block{index + 1}": cost for index, cost in enumerate(costs)}
    sets |= {"+".join(f"block{place + 1}" for place in range(k)): cost for k, cost in several}
    for blocks, lost in sets.items():
        deleted = len(blocks.split("+")) if blocks else 0
        for image in range(IMAGES):
            target = image % 5
            right = lost <= image < intact
            rows.append(
                {"epoch": epoch, "blocks": blocks, "image": image, "deleted": deleted}
                | {"target": target, "prediction": target if right else (target + 1) % 5}
                | {"probability": 0.5}
            )
    return rows


def plan_of(build, network, intact, costs, seed=1, several=()):
    share = 0.6 if "resnet" in network else None
    probed = {"lesions": lesion_rows(intact, costs, several)}
    return build.plan(network, seed, images=IMAGES, skip_share=share, probed=probed)


def test_costs_are_tested_against_the_intact_network_and_adjusted(build):
    experiment = build.experiment(plan_of(build, "resnet8", 80, [0, 5, 20, 8]))
    costs = block_costs([lesions_of(experiment.runs[0])])
    assert list(costs["cost"]) == pytest.approx([0, 0.05, 0.2, 0.08])
    p = [1.0, *(stats.binomtest(0, lost).pvalue for lost in (5, 20, 8))]
    assert list(costs["p_value"]) == pytest.approx(p)
    assert list(costs["adjusted"]) == pytest.approx(stats.false_discovery_control(p))
    assert list(costs["real"]) == [False, False, True, True]


def test_one_seed_has_the_interval_of_a_paired_difference(build):
    experiment = build.experiment(plan_of(build, "resnet8", 80, [20, 0, 0, 0]))
    row = block_costs([lesions_of(experiment.runs[0])]).iloc[0]
    half = 1.959964 * np.sqrt(20 / 100**2 - 20**2 / 100**3)
    assert (row["low"], row["high"]) == pytest.approx((0.2 - half, 0.2 + half))


def test_the_relative_cost_is_of_the_accuracy_above_chance(build):
    experiment = build.experiment(plan_of(build, "resnet8", 80, [30, 0, 0, 0]))
    mean = relative_cost([lesions_of(experiment.runs[0])])
    assert mean.value == pytest.approx(0.075 / (0.8 - 0.2))
    assert mean.low < mean.value < mean.high


def test_three_seeds_give_students_interval_of_the_paired_difference(build):
    plans = [
        plan_of(build, network, 80, [cost] * 4, seed)
        for network, base in (("plain8", 40), ("resnet8", 5))
        for seed, cost in enumerate((base, base + 2, base + 3))
    ]
    found = [lesions_of(run) for run in build.experiment(*plans).runs]
    mean = cost_difference(list(zip(found[:3], found[3:], strict=True)))
    assert mean.value == pytest.approx(0.35)
    assert (mean.low, mean.high) == pytest.approx((0.35, 0.35))
    assert "3 seeds" in mean.method


@pytest.mark.parametrize(
    ("plain", "residual", "verdict"),
    [(50, 5, Verdict.SUPPORTED), (5, 50, Verdict.CONTRADICTED), (20, 20, Verdict.INCONCLUSIVE)],
)
def test_the_paired_difference_of_costs_decides(build, plain, residual, verdict):
    result = ANALYSIS.run(
        build.experiment(
            plan_of(build, "plain8", 80, [plain] * 4, several=[(2, 60)]),
            plan_of(build, "resnet8", 80, [residual] * 4, several=[(2, 10)]),
        )
    )
    assert result.findings[0].verdict is verdict
    for figure in result.figures:
        figure.draw()


def test_each_network_is_judged_by_itself(build):
    result = ANALYSIS.run(
        build.experiment(
            plan_of(build, "plain8", 80, [60] * 4), plan_of(build, "resnet8", 80, [5] * 4)
        )
    )
    verdicts = {finding.network: finding.verdict for finding in result.findings}
    assert verdicts["plain8"] is Verdict.CONTRADICTED
    assert verdicts["resnet8"] is Verdict.SUPPORTED


def test_a_network_at_chance_cannot_be_judged(build):
    result = ANALYSIS.run(build.experiment(plan_of(build, "resnet8", 20, [5] * 4)))
    assert [finding.verdict for finding in result.findings] == [Verdict.INCONCLUSIVE]
    assert "no better than chance" in result.findings[0].meaning


def test_sets_of_blocks_are_listed_by_their_number(build):
    experiment = build.experiment(
        plan_of(build, "resnet8", 80, [5] * 4, several=[(2, 10), (3, 30)])
    )
    table = accuracy_by_number([lesions_of(experiment.runs[0])])
    means = table.groupby("deleted")["accuracy"].mean()
    assert list(means) == pytest.approx([0.8, 0.75, 0.7, 0.5])


def test_without_the_intact_network_it_does_not_apply(build):
    rows = [row for row in lesion_rows(80, [5] * 4) if row["blocks"]]
    experiment = build.experiment(build.plan("resnet8", images=IMAGES, probed={"lesions": rows}))
    with pytest.raises(NotApplicableError, match="intact"):
        ANALYSIS.run(experiment)


def lesions_on(images, intact, lesioned):
    """One deleted block; `images` are right that many of ten times."""
    rows = {"": [place < intact for place in range(10)], "b": [p < lesioned for p in range(10)]}
    right = pd.DataFrame.from_dict(rows, orient="index", columns=images)
    return Lesions(1, right, pd.Series({"": 0, "b": 1}), 0.5)


@pytest.mark.parametrize("seeds", [2, 3])
def test_seeds_validated_on_different_images_are_each_judged_on_their_own(seeds):
    measured = [
        lesions_on(range(10 * seed, 10 * seed + 10), 9, 9 - lost)
        for seed, lost in enumerate((2, 4, 6)[:seeds])
    ]
    row = block_costs(measured).iloc[0]
    losses = [0.2, 0.4, 0.6][:seeds]
    assert row["cost"] == pytest.approx(np.mean(losses))
    if seeds == 2:
        half = stats.norm.ppf(0.975) * np.sqrt((0.2 * 0.8 + 0.4 * 0.6) / 10) / 2
    else:
        half = stats.t.ppf(0.975, 2) * np.std(losses, ddof=1) / np.sqrt(3)
    assert (row["low"], row["high"]) == pytest.approx(
        (row["cost"] - half, row["cost"] + half), abs=1e-12
    )
