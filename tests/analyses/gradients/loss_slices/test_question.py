"""Planted lines of the loss: with a barrier between both ends, and without."""

import numpy as np
import pytest

from analyses.gradients.loss_slices.question import ANALYSIS, barriers
from analyses.registry import NotApplicableError
from analyses.result import Verdict
from analyses.statistics.proportions import wilson_interval

POSITIONS = (-0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25)


def slice_rows(heights, slope=0.1):
    """A jump an epoch: straight from 1 to 1 + slope, `height` above the higher end in between."""
    rows = []
    for epoch, height in enumerate(heights, start=2):
        for position in POSITIONS:
            loss = 1 + slope + height if position == 0.5 else 1 + slope * position
            rows.append(("between epochs", epoch, position, loss))
        rows += [("random", epoch, at, 1 + slope + at**2) for at in (-1.0, -0.5, 0.0, 0.5, 1.0)]
        rows += [("gradient", epoch, at, 1 + slope - at) for at in (-0.1, 0.0, 0.1)]
    names = ("direction", "epoch", "position", "loss")
    return [dict(zip(names, row, strict=True), images=24) for row in rows]


def sharpness_rows(curvatures):
    return [
        {"epoch": epoch, "gradient_norm": 2.0 / epoch, "curvature": curvature, "images": 24}
        for epoch, curvature in enumerate(curvatures, start=1)
    ]


def result_of(build, heights, curvatures=(3.0, 5.0), seeds=(0,)):
    probed = {"loss_slice": slice_rows(heights), "sharpness": sharpness_rows(curvatures)}
    return ANALYSIS.run(build.experiment(*(build.plan(seed=s, probed=probed) for s in seeds)))


@pytest.mark.parametrize(
    ("heights", "verdict"),
    [
        ([0.5] * 6, Verdict.SUPPORTED),
        ([-0.05] * 6, Verdict.CONTRADICTED),
        ([0.5, -0.05] * 3, Verdict.INCONCLUSIVE),
        ([0.5], Verdict.INCONCLUSIVE),
    ],
)
def test_the_share_of_jumps_with_a_barrier_decides(build, heights, verdict):
    finding = result_of(build, heights).findings[0]
    assert finding.verdict is verdict
    crossed = sum(height > 0 for height in heights)
    share = finding.estimates[0]
    assert share.value == pytest.approx(100 * crossed / len(heights))
    wanted = [100 * end for end in wilson_interval(crossed, len(heights))]
    assert [share.low, share.high] == pytest.approx(wanted)


def test_jumps_of_all_seeds_count(build):
    finding = result_of(build, [0.5, 0.5, 0.5], seeds=(0, 1)).findings[0]
    assert "6 of 6 jumps" in finding.meaning


@pytest.mark.parametrize("slope", [0.1, -0.1])
def test_a_barrier_is_above_the_higher_end(build, slope):
    rows = slice_rows([0.3], slope)
    (found,) = barriers(build.experiment(build.plan(probed={"loss_slice": rows})).runs[0])
    assert (found.before, found.after) == pytest.approx((1, 1 + slope))
    assert found.height == pytest.approx(0.3 + slope - max(slope, 0))
    assert (found.epoch, found.images) == (2, 24)


def test_points_beyond_the_two_ends_make_no_barrier(build):
    rows = slice_rows([-0.05])
    for row in rows:
        if row["direction"] == "between epochs" and row["position"] in (-0.25, 1.25):
            row["loss"] = 50.0
    (found,) = barriers(build.experiment(build.plan(probed={"loss_slice": rows})).runs[0])
    assert found.height < 0


def test_a_loss_that_is_not_finite_is_left_out(build):
    result = result_of(build, [float("nan"), 0.5, 0.5])
    assert "2 of 2 jumps" in result.findings[0].meaning
    for figure in result.figures:
        figure.draw()


def test_a_line_without_one_of_its_ends_is_left_out(build):
    rows = [row for row in slice_rows([0.5]) if row["position"] != 1.0]
    assert barriers(build.experiment(build.plan(probed={"loss_slice": rows})).runs[0]) == []


def test_figures_show_what_was_recorded(build):
    result = result_of(build, [0.5, -0.05])
    lines, around, sharp = result.figures
    assert "50 % of the jumps of plain8" in lines.title
    drawn = lines.draw().axes[0].lines
    curves = [line.get_ydata() for line in drawn if len(line.get_xdata()) == len(POSITIONS)]
    assert np.max(curves) == pytest.approx(1.6)
    assert "both sides at 2 of 2 jumps" in around.title
    gradient, random = around.draw().axes[:2]
    assert "units of w" in gradient.get_xlabel()
    assert random.lines[0].get_ydata() == pytest.approx([1, 0.25, 0, 0.25, 1])
    assert "5 in plain8" in sharp.title


def test_negative_curvature_is_drawn(build):
    axis = result_of(build, [0.5], curvatures=(-3.0, 5.0)).figures[-1].draw().axes[1]
    assert axis.get_ylim()[0] < -3
    assert axis.get_ylabel() == "curvature (nats / unit of w$^2$)"


def test_sharpness_alone_is_shown_without_a_verdict(build):
    plan = build.plan(probed={"sharpness": sharpness_rows([3.0])})
    result = ANALYSIS.run(build.experiment(plan))
    assert result.findings == ()
    assert [figure.key for figure in result.figures] == ["sharpness"]
    assert "no jump was recorded" in result.summary


def test_without_both_tables_it_does_not_apply(build):
    with pytest.raises(NotApplicableError, match="loss_slice and sharpness"):
        ANALYSIS.run(build.experiment(build.plan()))
