"""Planted dose-responses to the skips of a residual network."""

import numpy as np
import pytest

from analyses.registry import NotApplicableError
from analyses.result import Verdict
from analyses.skips.scaling.measure import scaling_response
from analyses.skips.scaling.question import ANALYSIS
from analyses.statistics.proportions import wilson_interval

SCALES = (0.0, 0.5, 1.0)


def dose_rows(without, intact=200, images=250, growth=4.0, epoch=3, scopes=("all", "layer1")):
    """Counts rise linearly from `without` to `intact`; the gradient ratio falls to 2 at alpha 1."""
    return [
        {"epoch": epoch, "scope": scope, "scale": scale, "images": images}
        | {"correct": round(intact * scale)}
        | {"correct_recalibrated": round(without + (intact - without) * scale), "loss": 1.0}
        | {"first_gradient_norm": 2.0 * growth ** (1 - scale), "last_gradient_norm": 1.0}
        for scope in scopes
        for scale in SCALES
    ]


def experiment_of(build, *without, **options):
    return build.experiment(
        *(
            build.plan(
                "resnet8",
                seed,
                skip_share=0.6,
                probed={"skip_scaling": dose_rows(count, **options)},
            )
            for seed, count in enumerate(without)
        )
    )


@pytest.mark.parametrize(
    ("without", "intact", "verdict"),
    [
        (50, 200, Verdict.SUPPORTED),
        (249, 249, Verdict.CONTRADICTED),
        (190, 200, Verdict.INCONCLUSIVE),
    ],
)
def test_the_loss_without_skips_decides(build, without, intact, verdict):
    result = ANALYSIS.run(experiment_of(build, without, intact=intact))
    assert result.findings[0].verdict is verdict
    for figure in result.figures:
        figure.draw()


def test_accuracy_and_its_interval_are_of_the_counts(build):
    one = scaling_response("resnet8", list(experiment_of(build, 50).runs))
    row = one.rows[(one.rows["scope"] == "all") & (one.rows["scale"] == 0.5)].iloc[0]
    assert row["accuracy"] == pytest.approx(125 / 250)
    assert (row["low"], row["high"]) == pytest.approx(wilson_interval(125, 250))
    assert row["running"] == pytest.approx(100 / 250)
    assert one.lost.value == pytest.approx(150 / 250)
    assert one.lost_running.value == pytest.approx(200 / 250)


def test_the_gradient_ratio_changes_by_the_planted_factor(build):
    one = scaling_response("resnet8", list(experiment_of(build, 50, growth=8.0).runs))
    assert np.exp(one.log_change.value) == pytest.approx(8.0)


def test_three_seeds_give_an_interval_over_seeds(build):
    (finding,) = ANALYSIS.run(experiment_of(build, 50, 60, 55)).findings
    assert finding.verdict is Verdict.SUPPORTED
    assert "over 3 seeds" in finding.estimates[0].method
    assert finding.estimates[0].value == pytest.approx(100 * (200 - 55) / 250)


def test_only_the_last_epoch_counts(build):
    rows = dose_rows(200, epoch=1) + dose_rows(50, epoch=3)
    experiment = build.experiment(build.plan("resnet8", probed={"skip_scaling": rows}))
    one = scaling_response("resnet8", list(experiment.runs))
    assert (one.epoch, one.lost.value) == (3, pytest.approx(150 / 250))


def test_blocks_and_stages_are_separate(build):
    experiment = experiment_of(build, 50, scopes=("all", "layer1", "block1", "layer1.0"))
    one = scaling_response("resnet8", list(experiment.runs))
    assert one.scopes("stage") == ["layer1"]
    assert sorted(one.scopes("block")) == ["block1", "layer1.0"]


def test_without_all_skips_scaled_it_cannot_be_told(build):
    result = ANALYSIS.run(experiment_of(build, 50, scopes=("layer1",)))
    assert result.findings[0].verdict is Verdict.INCONCLUSIVE
    assert "not scaled down" in result.findings[0].meaning
    for figure in result.figures:
        figure.draw()


def test_without_scaled_skips_it_does_not_apply(build):
    with pytest.raises(NotApplicableError, match="skip_scaling"):
        ANALYSIS.run(build.experiment(build.plan()))


def test_missing_gradients_leave_the_accuracies(build):
    rows = [row | {"first_gradient_norm": float("nan")} for row in dose_rows(50)]
    result = ANALYSIS.run(build.experiment(build.plan("resnet8", probed={"skip_scaling": rows})))
    assert result.findings[0].verdict is Verdict.SUPPORTED
    assert result.findings[0].estimates[-1].value is None
    assert [figure.key for figure in result.figures] == ["dose-response"]
