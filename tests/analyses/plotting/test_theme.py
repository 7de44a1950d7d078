from analyses.plotting import theme


def test_a_network_has_the_same_colour_and_marker_however_many_others_follow():
    alone, among = theme.styles(["plain"]), theme.styles(["plain", "residual", "mine"])
    assert among["plain"] == alone["plain"]
    assert set(alone["plain"]) == {"color", "marker"}
    assert alone["plain"]["color"] == theme.colours(["plain"])["plain"]


def test_six_networks_differ_in_colour_and_in_marker():
    styles = theme.styles(list("abcdef")).values()
    assert len({style["color"] for style in styles}) == 6
    assert len({style["marker"] for style in styles}) == 6
