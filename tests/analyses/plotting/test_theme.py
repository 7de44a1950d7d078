import sys

import matplotlib as mpl
import pytest
import seaborn

from analyses.plotting import theme


@pytest.fixture
def nothing_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    theme._style.cache_clear()
    yield
    theme._style.cache_clear()


@pytest.mark.usefixtures("nothing_kept")
def test_figures_have_seaborns_style_though_it_is_loaded_once(monkeypatch):
    expected = seaborn.axes_style("ticks")
    styles = [theme._style()]
    monkeypatch.setitem(sys.modules, "seaborn", None)  # an import would fail
    theme._style.cache_clear()
    styles.append(theme._style())
    for style in styles:
        missing = expected.keys() - style.keys()
        assert missing == {"font.sans-serif", "image.cmap"}
        assert style == {key: expected[key] for key in style}
    with theme.theme():
        assert mpl.rcParams["axes.edgecolor"] == expected["axes.edgecolor"]


def test_a_network_has_the_same_colour_and_marker_however_many_others_follow():
    alone, among = theme.styles(["plain"]), theme.styles(["plain", "residual", "mine"])
    assert among["plain"] == alone["plain"]
    assert set(alone["plain"]) == {"color", "marker"}
    assert alone["plain"]["color"] == theme.colours(["plain"])["plain"]


def test_six_networks_differ_in_colour_and_in_marker():
    styles = theme.styles(list("abcdef")).values()
    assert len({style["color"] for style in styles}) == 6
    assert len({style["marker"] for style in styles}) == 6
