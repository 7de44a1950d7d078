"""The overview names what it shows: the loss to stale statistics, and what jumps are made of."""

import pytest
from matplotlib.text import Text

from analyses.overview.figures import draw_overview
from analyses.overview.measure import network_overview
from analyses.plotting import theme

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


def bars(axis):
    """Where each bar stands, from where to where it goes in points, and whether it is hatched."""
    found = []
    for one in axis.patches:
        (left, start), (right, end) = one.get_bbox().get_points()
        found.append(((left + right) / 2, round(start, 1), round(end, 1), bool(one.get_hatch())))
    return found


@pytest.mark.parametrize(
    ("again", "fall", "rise"),
    [
        # Of -60 points the weights have none, all, a third on the same side, or +6 (against it).
        ([0.9, 0.9, 0.9, 0.9], ((0, 0), (0, -60)), ((0, 0), (0, 60))),
        (FALLS, ((0, -60), (0, 0)), ((0, 60), (0, 0))),
        ([0.9, 0.9, 0.7, 0.9], ((0, -20), (-20, -60)), ((0, 20), (20, 60))),
        ([0.9, 0.8, 0.9, 0.9], ((0, 10), (0, -70)), ((0, 0), (0, 60))),
    ],
)
def test_bars_split_each_jump_in_the_change_of_the_weights_and_stale_statistics(
    drawn, again, fall, rise
):
    figure = drawn(again)
    expected = [
        (epoch, *ends, hatched)
        for epoch, parts in ((3, fall), (4, rise))
        for ends, hatched in zip(parts, (False, True), strict=True)
    ]
    for found, one in zip(sorted(bars(figure.axes[1])), sorted(expected), strict=True):
        assert found == pytest.approx(one, abs=0.6)
    assert {"part of a jump: the weights", "part of a jump: stale statistics"} <= set(
        legend(figure)
    )


def test_the_bars_of_two_seeds_stand_side_by_side(build):
    options = {"epochs": 4, "right": build.right_of(FALLS), "recalibrated": build.right_of(FALLS)}
    plans = [build.plan(seed=seed, **options) for seed in (1, 2)]
    runs = list(build.experiment(*plans).runs)
    axis = draw_overview(["plain8"], [network_overview("plain8", runs)]).axes[1]
    places = sorted({round(place, 3) for place, *_ in bars(axis)})
    assert places == pytest.approx([2.845, 3.155, 3.845, 4.155])


def test_a_network_without_jumps_says_so_beside_one_with_jumps(build):
    networks = {"plain8": FALLS, "resnet8": [0.9] * 4}
    rights = {name: build.right_of(accuracies) for name, accuracies in networks.items()}
    plans = [build.plan(name, epochs=4, right=right, recalibrated=right)
             for name, right in rights.items()]  # fmt: skip
    shown = [network_overview(one.network, [one]) for one in build.experiment(*plans).runs]
    figure = draw_overview(list(networks), shown)
    jumps = [axis for axis in figure.axes if "no jump beyond noise" in axis_texts(axis)]
    assert len(jumps) == 1
    assert not bars(jumps[0])


def axis_texts(axis):
    return [one.get_text() for one in axis.texts]


def test_where_statistics_were_not_computed_anew_nothing_is_said_of_them(drawn):
    figure = drawn(None)
    assert "fall beyond noise" in legend(figure)
    assert not any("statistics" in one for one in [*legend(figure), texts(figure)])
    assert not any(axis.patches for axis in figure.axes[:2])


def test_the_narrow_drawing_has_the_same_panels_below_each_other(build):
    right, again = build.right_of(FALLS), build.right_of([0.9] * 4)
    networks = ["plain8", "resnet8"]
    plans = [build.plan(one, epochs=4, right=right, recalibrated=again) for one in networks]
    runs = build.experiment(*plans).runs
    shown = [network_overview(one.network, [one]) for one in runs]
    wide, narrow = (draw_overview(networks, shown, narrow=narrow) for narrow in (False, True))
    assert narrow.get_size_inches()[0] == theme.NARROW_WIDTH
    for figure, lefts in ((wide, 2), (narrow, 1)):
        figure.draw_without_rendering()
        panels = [axis for axis in figure.axes if axis.get_visible()][:6]
        assert len({round(axis.get_position().x0, 3) for axis in panels}) == lefts
    assert legend(wide) == legend(narrow)
    # In inches: nothing stands beyond the sides, or the whole picture would be made smaller.
    extent = narrow.get_tightbbox()
    assert extent.x0 > -0.15
    assert extent.x1 < theme.NARROW_WIDTH + 0.15
    # At 400 pixels, of which the page leaves the picture some 340, small print has 10 pixels.
    assert theme.SMALL_TEXT_SIZE * 340 / (72 * theme.NARROW_WIDTH) > 9.5


def test_all_panels_together_leave_room_for_the_answer_on_a_first_page(drawn):
    assert drawn([0.9] * 4).get_size_inches()[1] <= 4.8


def test_a_small_loss_is_drawn_but_not_named(drawn):
    assert "lost to" not in texts(drawn([0.9, 0.9, 0.32, 0.9]))


def test_a_loss_within_noise_is_drawn_but_not_named(drawn):
    # 4 images more of 60 are right: 6.7 points, and an exact p-value of 2 / 2^4.
    figure = drawn([0.9, 0.9, 0.3 + 4 / 60, 0.9])
    assert "lost to" not in texts(figure)
    assert [one for one in figure.axes[0].collections if one.get_alpha() == 0.25]


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize(
    ("accuracies", "again"),
    [
        (FALLS, [0.9, 0.9, 0.8, 0.9]),  # free below the curves
        ([0.1, 0.1, 0.1, 0.9], [0.1, 0.1, 0.6, 0.9]),  # above them, on the left
        ([0.9, 0.3, 0.1, 0.1], [0.9, 0.6, 0.3, 0.1]),  # above them, on the right
    ],
)
def test_the_name_of_a_loss_covers_no_curve(build, accuracies, again, narrow):
    options = {"right": build.right_of(accuracies), "recalibrated": build.right_of(again)}
    runs = list(build.experiment(build.plan(epochs=4, **options)).runs)
    figure = draw_overview(["plain8"], [network_overview("plain8", runs)], narrow=narrow)
    figure.draw_without_rendering()
    (name,) = figure.axes[0].texts
    axis = figure.axes[0]
    box = Text.get_window_extent(name).transformed(axis.transAxes.inverted())
    for line in axis.lines:
        if line.get_linestyle() != ":" and len(line.get_xdata()) > 1:
            path = line.get_path().interpolated(50).vertices
            inside = axis.transLimits.transform(path)
            assert not box.count_contains(inside)
