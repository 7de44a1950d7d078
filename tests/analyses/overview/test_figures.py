"""The overview names what it shows: the loss to stale statistics, and what jumps are made of."""

import pytest

from analyses.overview.figures import draw_overview
from analyses.overview.measure import network_overview

FALLS = [0.9, 0.9, 0.3, 0.9]


@pytest.fixture
def drawn(build):
    def draw(again):
        recalibrated = None if again is None else build.right_of(again)
        options = {"epochs": 4, "right": build.right_of(FALLS), "recalibrated": recalibrated}
        runs = list(build.experiment(build.plan(**options)).runs)
        return draw_overview(["plain8"], [network_overview("plain8", runs)])

    return draw


def texts(figure):
    return " ".join(one.get_text() for axis in figure.axes for one in axis.texts)


def legend(figure):
    return [one.get_text() for one in figure.legends[0].get_texts()]


def test_the_loss_to_stale_statistics_is_filled_and_named_with_its_size(drawn):
    figure = drawn([0.9, 0.9, 0.8, 0.9])
    assert "50.0 points lost to\nstale batch-norm statistics" in texts(figure)
    (filled,) = [one for one in figure.axes[0].collections if one.get_alpha() == 0.25]
    # Between the accuracies at epoch 3, where alone they differ.
    assert filled.get_datalim(figure.axes[0].transData).y0 == pytest.approx(0.3)
    assert "the same weights, fresh statistics" in legend(figure)


@pytest.mark.parametrize(
    ("again", "said", "not_said"),
    [
        ([0.9] * 4, "by stale statistics alone", "fall, with fresh statistics too"),
        (FALLS, "fall, with fresh statistics too", "by stale statistics alone"),
    ],
)
def test_jumps_say_whether_the_weights_have_them_too(drawn, again, said, not_said):
    named = legend(drawn(again))
    assert said in named
    assert not_said not in named


def test_where_statistics_were_not_computed_anew_nothing_is_said_of_them(drawn):
    figure = drawn(None)
    assert "fall beyond noise" in legend(figure)
    assert not any("statistics" in one for one in [*legend(figure), texts(figure)])


def test_a_small_loss_is_drawn_but_not_named(drawn):
    assert "lost to" not in texts(drawn([0.9, 0.9, 0.32, 0.9]))
