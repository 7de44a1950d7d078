"""Skip shares in a chain of scalar residual blocks, and De & Smith's shares of the variance."""

import numpy as np
import pandas as pd
import pytest

from analyses.registry import NotApplicableError
from analyses.result import Verdict
from analyses.skips.carry.measure import additions_in_order, expected_branch_share, skip_shares
from analyses.skips.carry.question import ANALYSIS


@pytest.mark.parametrize("gain", [0.26, 1.5])
def test_a_chain_of_linear_blocks_x_plus_a_x_has_shares_of_one_to_a(build, gain):
    share = 1 / (1 + gain)
    experiment = build.experiment(build.plan("resnet8", skip_share=share))
    one = skip_shares("resnet8", list(experiment.runs))
    assert one.mean.value == pytest.approx(share)
    assert one.first.value == pytest.approx(share)
    assert one.product == pytest.approx(share**4)
    # Path lengths are Binomial(4, a / (1 + a)): their mean is the number of branches passed.
    assert one.branches.value == pytest.approx(4 * gain / (1 + gain))


@pytest.mark.parametrize(
    ("share", "verdict"),
    [(0.8, Verdict.SUPPORTED), (0.2, Verdict.CONTRADICTED), (0.5, Verdict.INCONCLUSIVE)],
)
def test_the_mean_share_decides(build, share, verdict):
    experiment = build.experiment(build.plan("resnet8", skip_share=share, noise=0.05))
    (finding,) = ANALYSIS.run(experiment).findings
    assert finding.verdict is verdict


def test_identity_skips_and_projections_are_separate(build):
    experiment = build.experiment(build.plan("resnet8", skip_share=0.6))
    frame = experiment.runs[0].junctions
    frame.loc[frame["skip_type"] == "projection", "skip_share"] = 0.1
    one = skip_shares("resnet8", list(experiment.runs))
    assert one.identity is not None
    assert one.projection is not None
    assert (one.identity.value, one.projection.value) == pytest.approx((0.6, 0.1))


@pytest.mark.parametrize(
    ("skip_type", "name"),
    [("gated", "mean share, gated skips"), ("mixed", "mean share, mixed streams")],
)
def test_gated_and_mixed_skips_are_separate_and_no_projections(build, skip_type, name):
    experiment = build.experiment(build.plan("resnet8", skip_share=0.6))
    for run in experiment.runs:
        frame = run.junctions
        projected = frame["skip_type"] == "projection"
        frame.loc[projected, ["skip_type", "skip_share"]] = skip_type, 0.2
    assert skip_shares("resnet8", list(experiment.runs)).projection is None
    (finding,) = ANALYSIS.run(experiment).findings
    shares = {estimate.name: estimate.value for estimate in finding.estimates}
    assert shares[name] == pytest.approx(0.2)


def test_further_additions_of_a_block_follow_its_first(build):
    (run,) = build.experiment(build.plan("resnet8", skip_share=0.6)).runs[:1]
    first = additions_in_order(run)["layer"].tolist()
    second = run.junctions.assign(layer=run.junctions["layer"] + "+2")
    run._tables["junctions"] = pd.concat([run.junctions, second], ignore_index=True)
    assert additions_in_order(run)["layer"].tolist() == [
        name for block in first for name in (block, f"{block}+2")
    ]


def test_expected_branch_shares_are_de_and_smiths():
    expected = expected_branch_share(["identity"] * 4)
    assert list(expected["uncentred"]) == pytest.approx([1 / 2, 1 / 3, 1 / 4, 1 / 5])
    gain = 1 - 1 / np.pi
    assert list(expected["centred"])[:2] == pytest.approx(
        [gain / (1 + gain), gain / (1 + 2 * gain)]
    )


def test_a_projection_starts_the_count_anew():
    expected = expected_branch_share(["identity", "identity", "projection", "identity"])
    assert list(expected["uncentred"]) == pytest.approx([1 / 2, 1 / 3, 1 / 2, 1 / 3])


def test_measured_branch_share_is_of_the_first_step(build):
    experiment = build.experiment(build.plan("resnet8", skip_share=0.6))
    measured = skip_shares("resnet8", list(experiment.runs)).variance["measured"]
    assert list(measured) == pytest.approx([1 / 2, 1 / 3, 1 / 4, 1 / 5])


def test_the_share_along_skips_only_is_the_measured_path_where_there_is_one(build):
    rows = [
        {"epoch": 1, "length": length, "paths": 1.0, "gradient_norm": 1.0, "share": share}
        | {"draws": None}
        for length, share in enumerate([0.05, 0.95])
    ]
    experiment = build.experiment(
        build.plan("resnet8", skip_share=0.6, probed={"path_lengths": rows}),
        build.plan("resnet4", skip_share=0.6),
    )
    result = ANALYSIS.run(experiment)
    exact, approximate = (finding.estimates[-1] for finding in result.findings)
    assert exact.value == pytest.approx(0.05)
    assert approximate.value == pytest.approx(0.6**4)
    assert "approximation" in approximate.method
    assert "approximates" not in " ".join(result.findings[0].caveats)


def test_the_variance_is_set_beside_de_and_smiths_block_by_block(build):
    result = ANALYSIS.run(build.experiment(build.plan("resnet8", skip_share=0.6)))
    frame = result.tables[1].frame
    assert list(frame["measured, centred"]) == pytest.approx([1 / 2, 1 / 3, 1 / 4, 1 / 5])
    # The third block is a projection, so the count of blocks restarts there.
    expected = [1 / 2, 1 / 3, 1 / 2, 1 / 3]
    assert list(frame["theory, mean square: 1/(l + 2)"]) == pytest.approx(expected)
    assert "pre-activation networks" in result.method


def test_missing_shares_give_no_verdict(build):
    experiment = build.experiment(build.plan("resnet8", skip_share=float("nan")))
    result = ANALYSIS.run(experiment)
    assert result.findings[0].verdict is Verdict.INCONCLUSIVE
    for figure in result.figures:
        figure.draw()


def test_a_plain_network_has_no_skips(build):
    with pytest.raises(NotApplicableError, match="residual additions"):
        ANALYSIS.run(build.experiment(build.plan()))
