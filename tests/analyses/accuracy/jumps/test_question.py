"""Planted jumps are called real, and noise is not."""

import numpy as np
import pytest
from scipy.stats import binom

from analyses.accuracy.jumps.measure import changes_of_network, changes_of_run
from analyses.accuracy.jumps.question import ANALYSIS
from analyses.registry import NotApplicableError
from analyses.result import Verdict


def of(result, key):
    return next(finding for finding in result.findings if finding.key.startswith(key))


def plan_of(build, accuracies, images=200, **options):
    right = build.right_of(accuracies, images)
    return build.plan(right=right, epochs=len(accuracies), images=images, **options)


def test_changes_are_tested_on_the_same_images(build):
    experiment = build.experiment(plan_of(build, [0.5, 0.53, 0.4]))
    changes = changes_of_run(experiment.runs[0])
    assert list(changes["change"]) == pytest.approx([0.03, -0.13])
    # All six discordant images of the first change were gained, all 26 of the second lost.
    assert list(changes["p_value"]) == pytest.approx([2 * binom.pmf(0, n, 0.5) for n in (6, 26)])


def test_adjusted_p_values_are_benjamini_and_hochbergs(build):
    experiment = build.experiment(plan_of(build, [0.5, 0.53, 0.4, 0.405]))
    changes = changes_of_network("plain8", list(experiment.runs)).changes
    ordered = sorted(changes["p_value"])
    by_hand = [3 * ordered[0], 3 * ordered[1] / 2, ordered[2]]
    assert sorted(changes["adjusted"]) == pytest.approx(by_hand)


def test_a_planted_fall_is_a_jump(build):
    experiment = build.experiment(plan_of(build, [0.3, 0.6, 0.35, 0.62]))
    result = ANALYSIS.run(experiment)
    assert of(result, "jumps").verdict is Verdict.SUPPORTED
    assert list(result.tables[0].frame["into epoch"]) == [2, 3, 4]


def test_a_steady_rise_is_no_jump(build):
    experiment = build.experiment(plan_of(build, [0.3, 0.4, 0.5, 0.6]))
    assert of(ANALYSIS.run(experiment), "jumps").verdict is Verdict.CONTRADICTED


def test_noise_on_few_images_cannot_be_told(build):
    right = np.random.default_rng(0).random((4, 30)) < 0.5
    experiment = build.experiment(build.plan(right=right, epochs=4))
    assert of(ANALYSIS.run(experiment), "jumps").verdict is Verdict.INCONCLUSIVE


def test_one_epoch_has_no_changes(build):
    with pytest.raises(NotApplicableError, match="two epochs"):
        ANALYSIS.run(build.experiment(plan_of(build, [0.5])))
