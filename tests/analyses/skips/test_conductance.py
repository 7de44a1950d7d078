"""Planted conductance through skip and branch."""

import numpy as np
import pytest
from scipy import stats

from analyses.registry import NotApplicableError
from analyses.result import Verdict
from analyses.skips.conductance import ANALYSIS, network_conductance


def conductance_rows(share, images=20, blocks=4, error=0.01, noise=0.1, seed=0):
    generator = np.random.default_rng(seed)
    rows = []
    for image in range(images):
        total = 5 + generator.random()
        for block in range(1, blocks + 1):
            skip = total * (share + noise * generator.standard_normal())
            rows.append(
                {"epoch": 3, "layer": f"block{block}", "image": image, "skip": skip}
                | {"branch": total - skip, "difference": total, "completeness_error": error}
            )
    return rows


def experiment_of(build, *rows):
    return build.experiment(
        *(
            build.plan("resnet8", seed, skip_share=0.6, probed={"conductance": one})
            for seed, one in enumerate(rows)
        )
    )


@pytest.mark.parametrize(
    ("share", "verdict"), [(0.8, Verdict.SUPPORTED), (0.2, Verdict.CONTRADICTED)]
)
def test_the_mean_share_decides(build, share, verdict):
    result = ANALYSIS.run(experiment_of(build, conductance_rows(share)))
    assert result.findings[0].verdict is verdict
    result.figures[0].draw()


def test_the_share_is_a_ratio_of_sums_with_the_interval_of_scipys_bootstrap(build):
    rows = conductance_rows(0.6, images=40, blocks=1, noise=0.4)
    one = network_conductance("resnet8", list(experiment_of(build, rows).runs))
    skip, both = (np.array([row[name] for row in rows]) for name in ("skip", "difference"))
    assert one.mean.value == pytest.approx(skip.sum() / both.sum())
    interval = stats.bootstrap(
        (skip, both),
        lambda s, b, axis: s.sum(axis) / b.sum(axis),
        paired=True,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert (one.mean.low, one.mean.high) == pytest.approx((interval.low, interval.high), abs=0.01)


def test_incomplete_attributions_give_no_verdict(build):
    finding = ANALYSIS.run(experiment_of(build, conductance_rows(0.8, error=0.3))).findings[0]
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert "completeness error 30.0 %" in finding.meaning


def test_few_images_give_no_interval(build):
    finding = ANALYSIS.run(experiment_of(build, conductance_rows(0.8, images=4))).findings[0]
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert finding.estimates[0].method == "no interval from 4 images"


def test_a_sum_that_may_be_zero_gives_no_interval(build):
    rows = conductance_rows(0.8)
    for row in rows:
        row["branch"] = (-1) ** row["image"] * 9.0 - row["skip"]
    one = network_conductance("resnet8", list(experiment_of(build, rows).runs))
    assert (one.mean.low, one.mean.high) == (None, None)


def test_three_seeds_give_an_interval_over_seeds(build):
    rows = [conductance_rows(share, noise=0.0) for share in (0.7, 0.8, 0.9)]
    one = network_conductance("resnet8", list(experiment_of(build, *rows).runs))
    expected = stats.ttest_1samp([0.7, 0.8, 0.9], 0).confidence_interval()
    assert (one.mean.low, one.mean.high) == pytest.approx((expected.low, expected.high))


def test_without_conductance_it_does_not_apply(build):
    with pytest.raises(NotApplicableError, match="conductance"):
        ANALYSIS.run(build.experiment(build.plan()))


def test_missing_numbers_give_no_verdict(build):
    rows = [row | {"skip": float("nan")} for row in conductance_rows(0.8)]
    result = ANALYSIS.run(experiment_of(build, rows))
    assert result.findings[0].verdict is Verdict.INCONCLUSIVE
    assert "no share could be computed" in result.findings[0].meaning
    result.figures[0].draw()
