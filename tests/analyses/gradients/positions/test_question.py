"""Gradients by position, planted in the table `positions`."""

import numpy as np
import pytest

from analyses.gradients.positions.measure import MAX_COLUMNS, courses
from analyses.gradients.positions.question import ANALYSIS
from analyses.registry import NotApplicableError


def rows(steps, norms, layer="rnn", tensor="input", first=0):
    return [
        {
            "epoch": 1,
            "step": step,
            "layer": layer,
            "tensor": tensor,
            "bin": place,
            "first_position": 2 * place,
            "last_position": 2 * place + 1,
            "gradient_norm": norm,
            "rms": 1.0,
        }
        for step in range(first, first + steps)
        for place, norm in enumerate(norms)
    ]


@pytest.fixture
def planted(build):
    def make(*parts):
        return build.experiment(
            build.plan("net", probed={"positions": [row for part in parts for row in part]})
        )

    return make


def test_it_tells_what_reaches_the_first_position(planted):
    experiment = planted(rows(30, [0.1, 0.5, 1.0, 2.0]), rows(30, [0, 0, 0, 1], tensor="output"))
    result = ANALYSIS.run(experiment)
    assert result.summary == (
        "In net, the gradient at the first of 8 positions is 0.05 of the largest, at the last one "
        "1 (inputs of rnn, in the last steps)."
    )
    (table,) = result.tables
    assert table.frame["of"].tolist() == ["inputs of rnn"]  # not of its output too
    figure = result.figures[0].draw()
    mesh = figure.axes[0].collections[0]
    assert mesh.get_array().reshape(4, 30)[:, 0].tolist() == [0.05, 0.25, 0.5, 1.0]


def test_only_sequences_as_long_as_the_last_count_and_many_steps_are_gathered(planted):
    experiment = planted(rows(400, [1.0, 2.0]), rows(300, [1.0, 2.0, 4.0], first=400))
    (one,) = courses(experiment.runs[0])
    assert one.by_step.shape == (3, MAX_COLUMNS)
    assert one.by_step.columns.min() == 400
    assert np.allclose(one.last, [0.25, 0.5, 1.0])


def test_recurrences_come_before_other_layers(planted):
    experiment = planted(
        rows(5, [1.0, 1.0], layer="words", tensor="output"),
        rows(5, [1.0, 1.0], layer="cell", tensor="calls"),
    )
    names = [one.name for one in courses(experiment.runs[0])]
    assert names == ["calls of cell", "outputs of words"]


def test_without_positions_it_is_left_out(planted):
    with pytest.raises(NotApplicableError, match="no recurrent layer"):
        ANALYSIS.run(planted())
