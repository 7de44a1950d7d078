import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import MaxNLocator

from analyses.plotting import panels


def matrix(*rows):
    return pd.DataFrame(rows, columns=range(1, len(rows[0]) + 1))


def legend_texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_a_panel_gets_its_labels_whole_epochs_and_a_legend():
    with panels.panel(2.0, "loss") as (figure, axis):
        axis.plot([1, 1], [0.5, 0.6], label="plain")
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("epoch", "loss")
    assert axis.get_xlim() == (0.5, 1.5)
    assert legend_texts(figure) == ["plain"]
    assert figure.get_figheight() == 2.0


def test_a_panel_with_another_horizontal_axis_keeps_its_ticks():
    with panels.panel(2.0, "loss", "block", whole=False) as (_, axis):
        axis.set_xticks([1, 2], ["first", "second"])
    assert axis.get_xlabel() == "block"
    assert not isinstance(axis.xaxis.get_major_locator(), MaxNLocator)


def test_a_failure_while_drawing_a_panel_is_raised():
    with pytest.raises(ZeroDivisionError), panels.panel(2.0, "loss"):
        _ = 1 / 0


def test_a_row_shares_one_scale_one_label_and_one_legend():
    with panels.row(["plain", "residual"], 2.0, "loss", "block") as (figure, axes):
        for height, axis in enumerate(axes):
            axis.plot([1, 4], [height, height + 1], label="mean")
    assert [axis.get_title() for axis in axes] == ["plain", "residual"]
    assert [axis.get_ylabel() for axis in axes] == ["loss", ""]
    assert [axis.get_xlabel() for axis in axes] == ["block", "block"]
    assert axes[0].get_ylim() == axes[1].get_ylim()
    assert legend_texts(figure) == ["mean"]


def test_fractions_are_shown_as_whole_percentages():
    with panels.panel(2.0, "accuracy") as (_, axis):
        panels.percent_axis(axis)
    assert axis.yaxis.get_major_formatter()(0.25) == "25%"


def test_heat_maps_share_one_logarithmic_scale_and_leave_zeros_grey():
    maps = {"plain": matrix([0.0, 1.0], [2.0, np.nan]), "residual": matrix([4.0, 100.0])}
    figure = panels.heat_maps(maps, 2.0, "depth", "norm")
    left, right, bar = figure.axes
    drawn = [axis.collections[0] for axis in (left, right)]
    assert drawn[0].norm is drawn[1].norm
    assert isinstance(drawn[0].norm, LogNorm)
    assert (drawn[0].norm.vmin, drawn[0].norm.vmax) == (1.0, 100.0)
    assert np.ma.getmaskarray(drawn[0].get_array()).tolist() == [[True, False], [False, True]]
    assert [axis.get_title() for axis in (left, right)] == ["plain", "residual"]
    assert (left.get_ylabel(), right.get_ylabel(), bar.get_ylabel()) == ("depth", "", "norm")


def test_heat_maps_on_a_given_scale_show_zeros():
    scale = Normalize(-1, 1)
    figure = panels.heat_maps({"plain": matrix([0.0, 1.0])}, 2.0, "depth", "share", norm=scale)
    drawn = figure.axes[0].collections[0]
    assert drawn.norm is scale
    assert not np.ma.getmaskarray(drawn.get_array()).any()


def test_a_colour_bar_passes_its_options_on():
    figure, axes = panels.subplots(1, 1, 2.0)
    drawn = panels.heat_map(axes[0, 0], matrix([1.0, 2.0]), Normalize(1, 2), "cividis", "")
    bar = panels.colour_bar(figure, drawn, axes[0], "norm", location="bottom")
    assert bar.orientation == "horizontal"
    assert bar.ax.get_xlabel() == "norm"


def test_a_legend_names_each_label_once_below_or_above():
    figure, axes = panels.subplots(1, 2, 2.0)
    for axis in axes[0]:
        axis.plot([1, 2], label="mean")
    panels.legend(figure, list(axes[0]))
    panels.legend(figure, list(axes[0]), above=True)
    assert legend_texts(figure) == ["mean", "mean"]
    figure.draw_without_rendering()
    below, above = (one.get_window_extent() for one in figure.legends)
    assert below.y1 < above.y0


def test_panels_without_labels_get_no_legend():
    figure, axes = panels.subplots(1, 1, 2.0)
    panels.legend(figure, [axes[0, 0]])
    assert not figure.legends


def labels_of(span, *, few):
    """The labels of a flat logarithmic colour bar whose ends differ by the factor `span`."""
    with panels.panel(2.5, "x") as (figure, axis):
        mesh = axis.pcolormesh([[1.0, 1.0]], norm=LogNorm(0.0046975, 0.0046975 * span))
    bar = panels.colour_bar(figure, mesh, [axis], "norm", location="bottom", aspect=50)
    assert panels.few_ticks_if_narrow(bar.ax.xaxis, span) if few else True
    figure.draw_without_rendering()
    ticks = [*bar.ax.xaxis.get_major_ticks(), *bar.ax.xaxis.get_minor_ticks()]
    return [text for one in ticks if (text := one.label1.get_text())]


@pytest.mark.parametrize("span", [1.004, 1.05, 1.3])
def test_a_narrow_colour_bar_has_few_plain_labels(span):
    found = labels_of(span, few=True)
    assert 1 < len(found) < 6
    assert all(0.004 < float(text) < 0.008 for text in found)


def test_without_that_a_narrow_colour_bar_has_many_labels_with_exponents():
    found = labels_of(1.004, few=False)
    assert len(found) > 6 or any("times" in text for text in found)
