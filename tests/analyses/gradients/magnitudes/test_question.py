"""Planted magnitudes that float16 keeps or loses, and their ridges."""

from io import BytesIO

import numpy as np
import pytest

from analyses.gradients.magnitudes.question import ANALYSIS, run
from analyses.plotting import theme
from analyses.registry import NotApplicableError
from analyses.result import Verdict


@pytest.fixture
def recorded(build, histogram_row):
    """Makes runs in which a share of the gradients is below float16's smallest number."""

    def make(lost, *networks, steps=10, convolutions=8, seeds=(1,)):
        generator = np.random.default_rng(0)
        plans = []
        for network in networks or ("plain8",):
            for seed in seeds:
                layers = [f"conv{depth}" for depth in range(1, convolutions + 1)]
                cells = [(step // 5 + 1, step, layer) for step in range(steps) for layer in layers]
                small = 2.0**-26
                gradients = [np.where(generator.random(100) < lost, small, 2.0**-10) for _ in cells]
                tables = {
                    "gradient_histograms": [
                        histogram_row(*cell, drawn)
                        for cell, drawn in zip(cells, gradients, strict=True)
                    ],
                    "activation_histograms": [histogram_row(*cell, np.ones(100)) for cell in cells],
                }
                options = {"convolutions": convolutions, "probed": tables}
                plans.append(build.plan(network, seed, **options))
        return build.experiment(*plans)

    return make


@pytest.mark.parametrize(
    ("lost", "steps", "verdict"),
    [
        (0.3, 10, Verdict.SUPPORTED),
        (0.001, 10, Verdict.CONTRADICTED),
        (0.05, 10, Verdict.INCONCLUSIVE),
        (0.3, 3, Verdict.INCONCLUSIVE),
    ],
)
def test_gradients_underflow_where_they_were_planted_too_small(recorded, lost, steps, verdict):
    (finding,) = ANALYSIS.run(recorded(lost, steps=steps)).findings
    assert finding.verdict is verdict
    assert finding.estimates[0].value == pytest.approx(100 * lost, abs=1.5)
    assert finding.topic == "underflow"


def test_the_threshold_is_an_argument(recorded):
    (finding,) = run(recorded(0.3), lost=0.5).findings
    assert finding.verdict is Verdict.CONTRADICTED


def test_three_seeds_give_the_interval(recorded):
    (finding,) = ANALYSIS.run(recorded(0.3, steps=1, seeds=(1, 2, 3))).findings
    assert finding.estimates[0].method == "Student interval over 3 seeds"
    assert finding.verdict is Verdict.SUPPORTED


def test_what_to_try_names_the_scale_that_fits(recorded):
    (finding,) = ANALYSIS.run(recorded(0.3)).findings
    # 2^-10 times 2^25 is 2^15, the last power of two below float16's largest number.
    assert "2^25" in finding.next_step
    assert finding.estimates[2].value == 0.0


def test_findings_have_one_statement_and_name_their_evidence(recorded):
    result = ANALYSIS.run(recorded(0.1, "plain8", "resnet8"))
    keys = {figure.key for figure in result.figures} | {table.key for table in result.tables}
    for finding in result.findings:
        assert finding.statement == "Gradients would underflow in float16."
        assert set(finding.evidence) == keys


def test_old_runs_are_told_how_to_record_histograms(build):
    with pytest.raises(NotApplicableError, match=r"train again .*histograms=10"):
        ANALYSIS.run(build.experiment(build.plan()))


def test_ridges_stand_between_the_bounds_of_float16(recorded):
    (figure,) = ANALYSIS.run(recorded(0.1, "plain8", "resnet8")).figures
    drawing = figure.draw()
    assert drawing.get_size_inches()[0] == theme.WIDTH
    assert [axis.get_title() for axis in drawing.axes] == [
        "plain8: activations", "resnet8: activations", "plain8: gradients", "resnet8: gradients",
    ]  # fmt: skip
    for axis in drawing.axes:
        upright = [line.get_xdata()[0] for line in axis.lines if list(line.get_ydata()) == [0, 1]]
        assert upright == [-24, -14, 16]
        assert axis.get_xlim()[0] <= -26
        assert axis.get_xlim()[1] > 16
    assert "2^-10 at depth 1" in figure.alt


@pytest.mark.parametrize(
    ("networks", "convolutions", "steps"),
    [(("a",), 1, 1), (("a", "$\\frac{"), 40, 1), (tuple("abcd"), 3, 6)],
)
def test_any_number_of_networks_and_layers_can_be_drawn(recorded, networks, convolutions, steps):
    options = {"convolutions": convolutions, "steps": steps}
    (figure,) = ANALYSIS.run(recorded(0.1, *networks, **options)).figures
    drawing = figure.draw()
    drawing.savefig(BytesIO(), format="svg")
    shown = [axis for axis in drawing.axes if axis.get_visible()]
    assert len(shown) == 2 * len(networks)
    assert max(axis.get_ylim()[1] for axis in shown) < 20


def test_gradients_that_are_all_zero_can_be_drawn(build, histogram_row):
    tables = {
        "gradient_histograms": [histogram_row(1, 0, "conv1", np.zeros(3))],
        "activation_histograms": [histogram_row(1, 0, "conv1", np.ones(3))],
    }
    result = ANALYSIS.run(build.experiment(build.plan(probed=tables)))
    result.figures[0].draw()
    assert result.findings[0].verdict is Verdict.INCONCLUSIVE
    assert "exactly zero" in result.findings[0].meaning
