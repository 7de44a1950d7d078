"""Planted jumps are called real, noise is not, and few epochs say nothing about links."""

import numpy as np
import pytest
from scipy.stats import binom

from analyses.accuracy_changes import changes_of, jumps
from analyses.accuracy_jumps import ANALYSIS
from analyses.epoch_quantities import epoch_quantities
from analyses.registry import NotApplicableError
from analyses.result import Verdict


def of(result, key):
    return next(finding for finding in result.findings if finding.key.startswith(key))


def plan_of(build, accuracies, images=200, **options):
    right = build.right_of(accuracies, images)
    return build.plan(right=right, epochs=len(accuracies), images=images, **options)


def test_changes_are_tested_on_the_same_images(build):
    experiment = build.experiment(plan_of(build, [0.5, 0.53, 0.4]))
    changes = changes_of(experiment.runs[0])
    assert list(changes["change"]) == pytest.approx([0.03, -0.13])
    # All six discordant images of the first change were gained, all 26 of the second lost.
    assert list(changes["p_value"]) == pytest.approx([2 * binom.pmf(0, n, 0.5) for n in (6, 26)])


def test_adjusted_p_values_are_benjamini_and_hochbergs(build):
    experiment = build.experiment(plan_of(build, [0.5, 0.53, 0.4, 0.405]))
    changes = jumps("plain8", list(experiment.runs)).changes
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


def test_fewer_than_eight_epochs_say_nothing_about_a_link(build):
    finding = of(
        ANALYSIS.run(build.experiment(plan_of(build, [0.3, 0.6, 0.3, 0.7, 0.2, 0.5, 0.6]))),
        "association",
    )
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert "7 epochs in all" in finding.meaning
    assert "at least" in finding.next_step


def test_a_planted_link_is_found_and_called_an_association(build):
    accuracies = list(np.random.default_rng(3).uniform(0.2, 0.8, 30))
    experiment = build.experiment(plan_of(build, accuracies, steps=3))
    run = experiment.runs[0]
    change = np.diff(accuracies, prepend=accuracies[0])
    frame = run.parameters
    frame["update_to_weight"] = 0.001 * np.exp(change[frame["epoch"].to_numpy() - 1])
    finding = of(ANALYSIS.run(experiment), "association")
    assert finding.verdict is Verdict.SUPPORTED
    assert "update to weight in the same epoch" in finding.meaning
    assert any(caveat.startswith("An association") for caveat in finding.caveats)


def test_unrelated_gradients_are_not_linked(build):
    accuracies = list(np.random.default_rng(3).uniform(0.2, 0.8, 30))
    experiment = build.experiment(plan_of(build, accuracies, steps=3, noise=0.3))
    assert of(ANALYSIS.run(experiment), "association").verdict is not Verdict.SUPPORTED


def test_quantities_of_an_epoch_are_logarithms_of_medians(build):
    experiment = build.experiment(build.plan("resnet8", factor=0.8, skip_share=0.6))
    quantities = epoch_quantities(experiment.runs[0])
    assert list(quantities.index) == [1, 2, 3]
    assert quantities["factor per layer"].tolist() == pytest.approx([np.log(0.8)] * 3)
    first = quantities["gradient at the first layer"].tolist()
    assert first == pytest.approx([7 * np.log(0.8)] * 3)
    assert quantities["share of the skips"].tolist() == pytest.approx([0.6] * 3)


def test_without_gradients_the_jumps_stand_and_the_link_cannot_be_told(build):
    missing = ("gradients", "parameters")
    experiment = build.experiment(plan_of(build, [0.3, 0.6] * 5, without=missing))
    result = ANALYSIS.run(experiment)
    assert of(result, "jumps").verdict is Verdict.SUPPORTED
    assert "no gradient quantity" in of(result, "association").meaning
    assert len(result.figures) == 1


def test_one_epoch_has_no_changes(build):
    with pytest.raises(NotApplicableError, match="two epochs"):
        ANALYSIS.run(build.experiment(plan_of(build, [0.5])))
