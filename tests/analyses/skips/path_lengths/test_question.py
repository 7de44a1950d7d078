"""Paths of linear blocks x + a x, whose shares by length are Binomial(n, a / (1 + a))."""

import numpy as np
import pytest
from scipy import stats

from analyses.registry import NotApplicableError
from analyses.result import Verdict
from analyses.skips.path_lengths.measure import path_lengths
from analyses.skips.path_lengths.question import ANALYSIS


def path_rows(gain, blocks=16, epochs=10, draws=None, noise=0.02):
    """Linear branches of gain a: |g_k| = C(n, k) a^k, share Binomial(n, a / (1 + a))."""
    rows = []
    generator = np.random.default_rng(0)
    for epoch in range(1, epochs + 1):
        now = gain * np.exp(noise * generator.standard_normal())
        for length in range(blocks + 1):
            paths = stats.binom.pmf(length, blocks, 0.5) * 2.0**blocks
            share = stats.binom.pmf(length, blocks, now / (1 + now))
            row = {"paths": paths, "gradient_norm": paths * now**length, "share": share}
            rows.append({"epoch": epoch, "length": length, **row, "draws": draws})
    return rows


def experiment_of(build, gain, network="resnet8", seeds=(1,), **options):
    plans = [
        build.plan(network, seed, probed={"path_lengths": path_rows(gain, **options)})
        for seed in seeds
    ]
    return build.experiment(*plans)


def test_linear_blocks_have_the_effective_length_of_their_binomial(build):
    experiment = experiment_of(build, 0.26, blocks=54, noise=0.0)
    one = path_lengths("resnet8", list(experiment.runs))
    expected = stats.binom(54, 0.26 / 1.26)
    assert one.by_share.value == pytest.approx(expected.mean())
    assert one.by_norm.value == pytest.approx(expected.mean())
    assert one.short.value == pytest.approx(expected.cdf(26))
    assert one.skips_only.value == pytest.approx((1 / 1.26) ** 54)
    assert one.all_paths == pytest.approx(stats.binom.pmf(np.arange(55), 54, 0.5))


def test_lengths_weighted_by_norm_are_those_of_the_norms_not_of_the_shares(build):
    rows = [
        {"epoch": 1, "length": length, "paths": 1.0, "gradient_norm": norm, "share": share}
        | {"draws": None}
        for length, (norm, share) in enumerate([(1.0, 1.5), (3.0, -0.5)])
    ]
    experiment = build.experiment(build.plan("resnet8", probed={"path_lengths": rows}))
    one = path_lengths("resnet8", list(experiment.runs))
    assert (one.by_norm.value, one.by_share.value) == pytest.approx((0.75, -0.5))


@pytest.mark.parametrize(
    ("gain", "verdict"), [(0.3, Verdict.SUPPORTED), (3.0, Verdict.CONTRADICTED)]
)
def test_the_share_of_short_paths_decides(build, gain, verdict):
    result = ANALYSIS.run(experiment_of(build, gain))
    assert result.findings[0].verdict is verdict
    for figure in result.figures:
        figure.draw()


def test_half_the_blocks_is_not_short(build):
    rows = [
        {"epoch": 1, "length": length, "paths": 1.0, "gradient_norm": 1.0, "share": share}
        | {"draws": None}
        for length, share in enumerate([0.25, 0.5, 0.25])
    ]
    experiment = build.experiment(build.plan("resnet8", probed={"path_lengths": rows}))
    assert path_lengths("resnet8", list(experiment.runs)).short.value == pytest.approx(0.25)


def test_two_epochs_give_no_interval_and_three_seeds_do(build, tmp_path):
    few = experiment_of(build, 0.3, epochs=2)
    (finding,) = ANALYSIS.run(few).findings
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert "only 2 epochs" in finding.estimates[0].method
    seeds = type(build)(tmp_path / "seeds")
    several = experiment_of(seeds, 0.3, epochs=2, seeds=(1, 2, 3))
    assert ANALYSIS.run(several).findings[0].verdict is Verdict.SUPPORTED


def test_random_draws_are_a_caveat(build):
    finding = ANALYSIS.run(experiment_of(build, 0.3, draws=200)).findings[0]
    assert any("drawn at random" in caveat for caveat in finding.caveats)


def test_without_path_lengths_it_does_not_apply(build):
    with pytest.raises(NotApplicableError, match="path_lengths"):
        ANALYSIS.run(build.experiment(build.plan()))


def test_missing_numbers_give_no_verdict(build):
    rows = [row | {"share": float("nan"), "gradient_norm": float("nan")} for row in path_rows(0.3)]
    result = ANALYSIS.run(build.experiment(build.plan("resnet8", probed={"path_lengths": rows})))
    assert result.findings[0].verdict is Verdict.INCONCLUSIVE
    assert "no share could be computed" in result.findings[0].meaning
    for figure in result.figures:
        figure.draw()
