"""Planted differences, associations and interventions: only these last make a cause."""

import numpy as np
import pytest

from analyses.reasons.question import ANALYSIS
from analyses.registry import NotApplicableError
from analyses.result import Verdict

SMALL = {"epochs": 2, "steps": 8, "images": 100, "noise": 0.05}


def coherence_rows(cosine, epochs=2):
    return [
        {"epoch": epoch, "layer": "(model)", "samples": 8, "mean_cosine": cosine}
        | {"min_cosine": -0.5, "signal_to_noise": 0.1}
        for epoch in range(1, epochs + 1)
    ]


def plans_of(build, seeds, accuracy, fresh, **planted):
    """One plan per network and seed; `planted` holds functions of (network, seed)."""
    plans = []
    for network, share in (("plain8", None), ("resnet8", 0.6)):
        for seed in seeds:
            options = {name: make(network, seed) for name, make in planted.items()}
            right = build.right_of([accuracy[network](seed)] * 2, images=100)
            recalibrated = build.right_of([fresh[network](seed)] * 2, images=100)
            tables = {"right": right, "recalibrated": recalibrated, "skip_share": share}
            plans.append(build.plan(network, seed, **{**SMALL, **tables, **options}))
    return build.experiment(*plans)


def constant(plain, residual):
    return {"plain8": lambda seed: plain, "resnet8": lambda seed: residual}


def finding(result, key):
    return next(one for one in result.findings if one.key.startswith(key))


def test_what_an_intervention_moves_is_a_cause(build):
    experiment = plans_of(build, [1], constant(0.4, 0.9), constant(0.8, 0.9))
    result = ANALYSIS.run(experiment)
    stale = finding(result, "staleness")
    assert stale.verdict is Verdict.SUPPORTED
    assert stale.estimates[0].value == pytest.approx(40)
    assert "from the staleness of batch-norm statistics" in result.summary
    for figure in result.figures:
        figure.draw()


def test_an_intervention_that_leaves_the_difference_excludes_its_cause(build):
    experiment = plans_of(build, [1], constant(0.4, 0.9), constant(0.4, 0.9))
    assert finding(ANALYSIS.run(experiment), "staleness").verdict is Verdict.CONTRADICTED


def test_a_difference_without_intervention_is_no_cause(build):
    factors = {"plain8": 1.4, "resnet8": 1.1}
    experiment = plans_of(
        build,
        [1],
        constant(0.4, 0.9),
        constant(0.4, 0.9),
        factor=lambda network, seed: factors[network],
    )
    result = ANALYSIS.run(experiment)
    profile = finding(result, "norm-profile")
    assert profile.verdict is Verdict.INCONCLUSIVE
    assert "it differs, but no intervention changed it" in profile.meaning
    assert profile.estimates[0].value == pytest.approx(1.1 / 1.4, rel=0.02)


def test_what_is_the_same_in_both_does_not_explain(build):
    experiment = plans_of(
        build,
        [1],
        constant(0.4, 0.9),
        constant(0.4, 0.9),
        dead_fraction=lambda network, seed: 0.25,
    )
    dead = finding(ANALYSIS.run(experiment), "dead-units")
    assert dead.verdict is Verdict.CONTRADICTED
    assert "alike in both" in dead.meaning


def test_an_association_over_seeds_is_said_and_is_no_cause(build):
    # Seven seeds, accuracy rising with coherence within each network; both networks alike in it.
    rising = {"plain8": lambda seed: 0.3 + 0.05 * seed, "resnet8": lambda seed: 0.5 + 0.05 * seed}
    experiment = plans_of(
        build,
        range(7),
        rising,
        rising,
        probed=lambda network, seed: {"gradient_coherence": coherence_rows(0.1 * seed)},
    )
    result = ANALYSIS.run(experiment)
    one = finding(result, "coherence")
    rho = one.estimates[-1]
    assert rho.value == pytest.approx(1.0)
    assert "14 runs" in rho.method
    table = result.tables[0].frame.set_index("candidate")
    assert table.loc["gradient coherence", "p"] < 0.05
    assert one.verdict is not Verdict.SUPPORTED


def test_four_seeds_are_too_few_for_an_association(build):
    rising = {"plain8": lambda seed: 0.3 + 0.1 * seed, "resnet8": lambda seed: 0.5 + 0.1 * seed}
    result = ANALYSIS.run(plans_of(build, range(4), rising, rising))
    assert result.tables[0].frame["runs"].max() == 0
    assert "Too few seeds" in " ".join(finding(result, "norm-profile").caveats)


def test_skips_are_a_cause_from_three_seeds_on(build, tmp_path):
    one = ANALYSIS.run(plans_of(build, [1], constant(0.4, 0.9), constant(0.4, 0.9)))
    assert finding(one, "skips").verdict is Verdict.INCONCLUSIVE
    assert "luck of one training" in finding(one, "skips").meaning
    more = type(build)(tmp_path / "more")
    accuracy = {"plain8": lambda seed: 0.4 + 0.01 * seed, "resnet8": lambda seed: 0.9}
    three = ANALYSIS.run(plans_of(more, range(3), accuracy, accuracy))
    assert finding(three, "skips").verdict is Verdict.SUPPORTED
    assert finding(three, "skips").estimates[0].value == pytest.approx(49)


def test_breaking_a_trained_network_does_not_make_path_lengths_a_cause(build):
    paths = [
        {"epoch": 1, "length": length, "paths": 1.0, "gradient_norm": 1.0, "share": share}
        | {"draws": None}
        for length, share in enumerate([0.2, 0.4, 0.3, 0.1, 0.0])
    ]
    scaled = [
        {"epoch": 1, "scope": "all", "scale": scale, "images": 100, "correct": right}
        | {"correct_recalibrated": right, "loss": 1.0}
        | {"first_gradient_norm": 1.0, "last_gradient_norm": 1.0}
        for scale, right in ((0.0, 20), (1.0, 90))
    ]
    probed = {"path_lengths": paths, "skip_scaling": scaled}
    experiment = plans_of(
        build,
        [1],
        constant(0.4, 0.9),
        constant(0.4, 0.9),
        probed=lambda network, seed: probed if network == "resnet8" else {},
    )
    length = finding(ANALYSIS.run(experiment), "path-length")
    assert length.verdict is Verdict.INCONCLUSIVE
    assert "4 branches (by construction) in plain8" in length.meaning
    assert "loses 70" in length.meaning


def test_what_was_not_recorded_is_said(build):
    result = ANALYSIS.run(plans_of(build, [1], constant(0.4, 0.9), constant(0.4, 0.9)))
    said = " ".join(result.findings[0].caveats)
    assert "not examined: gradient coherence, effective path length and gradient noise" in said
    effects = result.tables[1].frame.set_index("intervention")["interval"]
    assert effects["delete one block"] == "not recorded"


def test_without_a_pair_it_does_not_apply(build):
    with pytest.raises(NotApplicableError, match="plain counterpart"):
        ANALYSIS.run(build.experiment(build.plan("resnet8", skip_share=0.6)))


def test_numbers_that_are_none_give_no_verdict(build):
    nan = float("nan")
    experiment = plans_of(
        build,
        [1],
        constant(0.4, 0.9),
        constant(0.4, 0.9),
        factor=lambda network, seed: nan,
        probed=lambda network, seed: {"gradient_coherence": coherence_rows(nan)},
    )
    result = ANALYSIS.run(experiment)
    keys = [one.key for one in result.findings]
    assert not [key for key in keys if key.startswith(("norm-profile", "coherence"))]
    for each in result.findings:
        for estimate in each.estimates:
            assert estimate.value is None or np.isfinite(estimate.value)
