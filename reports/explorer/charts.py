"""The charts of the explorer: Vega-Lite specifications that the page fills with data.

The page fills in the data sets and parameters by name. All fields have fixed names, so that the
name of a layer or network is never read as an expression or as a field path.
"""

import json
from functools import cache
from typing import Any

import altair as alt

# The page replaces this title by the quantity with its unit.
VALUE_TITLE = "VALUE"
NOT_FINITE = "#d7263d"
ZERO = "#000000"
# With more networks than this, colours repeat; the tooltip names the network.
COLOUR_COUNT = 6
# Numbers as in the page's texts; a logarithmic axis leaves some ticks without a label.
_NUMBER_LABEL = (
    "datum.label === '' ? '' : datum.value !== 0 && (abs(datum.value) < 0.001 || "
    "abs(datum.value) >= 1e5) ? format(datum.value, '~e') : format(datum.value, '~g')"
)
_DASHES = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 2], [1, 3]]


@cache
def charts_json() -> str:
    """All charts as JSON: `heat` by colour scale, `history` and `profile` by vertical scale."""
    charts = {
        "heat": {kind: _specification(heat_map(kind)) for kind in ("log", "linear", "diverging")},
        "history": {kind: _specification(line_chart(kind, "epoch")) for kind in ("log", "linear")},
        "profile": {kind: _specification(line_chart(kind, "depth")) for kind in ("log", "linear")},
    }
    return json.dumps(charts, sort_keys=True)


def heat_map(kind: str) -> alt.LayerChart:
    """Cells by epoch and row; colours on a `log`, `linear` or `diverging` scale.

    Data: `cells` (x, x2, y, y2, c); `nonfinite`, `zeros` and `chosen` (x, x2, y, y2).
    Parameters: first, last, marks (epochs), rows, ticks, labels (of depth), low, high (of c).
    """
    # aria=False: describing thousands of cells would take longer than drawing them.
    cells = (
        _cell_layer("cells")
        .mark_rect(aria=False, invalid="filter")
        .encode(color=_colour_scale(kind))
    )
    zeros = _cell_layer("zeros").mark_rect(aria=False, invalid="filter", color=ZERO)
    nonfinite = _cell_layer("nonfinite").mark_rect(aria=False, invalid="filter", color=NOT_FINITE)
    strokes = _cell_layer("nonfinite").mark_rule(aria=False, invalid="filter", color="white")
    outline = _cell_layer("chosen").mark_rect(fillOpacity=0, stroke="white", strokeWidth=3)
    inline = _cell_layer("chosen").mark_rect(fillOpacity=0, stroke="black", strokeWidth=1)
    return alt.LayerChart(layer=[cells, zeros, nonfinite, strokes, outline, inline])


def line_chart(kind: str, title: str) -> alt.LayerChart:
    """One line per network over x, thin lines for its seeds; the y scale is `log` or `linear`.

    Data: `lines`, `seeds` (x, v, n the network's place, s the series), `nonfinite` and `zeros`
    (x, n), `chosen` (x). Parameters: first, last, marks (of x), low, high (of v), dot.
    """
    x = alt.X(
        "x:Q",
        title=title,
        scale=_scale_between("first", "last"),
        axis=alt.Axis(values=alt.ExprRef("marks"), format="d", grid=False),
    )
    y = alt.Y(
        "v:Q",
        title=VALUE_TITLE,
        scale=_scale_between("low", "high", type=kind, nice=kind == "linear"),
        axis=alt.Axis(labelExpr=_NUMBER_LABEL, tickCount=6),
    )
    domain = list(range(COLOUR_COUNT))
    colour = alt.Color("n:N", scale=alt.Scale(domain=domain), legend=None)
    dash = alt.StrokeDash("n:N", scale=alt.Scale(domain=domain, range=_DASHES), legend=None)
    main = _named_data("lines").encode(x, y, colour, dash, alt.Detail("s:N"))
    seeds = _named_data("seeds").encode(x, y, colour, alt.Detail("s:N"))
    nonfinite = (
        _named_data("nonfinite")
        .mark_point(shape="cross", size=40)
        .encode(x, colour, y=alt.value(0))
    )
    bottom = alt.value(alt.ExprRef("height"))
    zeros = (
        _named_data("zeros").mark_point(shape="triangle-down", size=40).encode(x, colour, y=bottom)
    )
    # The page sets the size of the dots: if they touch, they hide the dashes of the lines.
    dot = alt.OverlayMarkDef(size=alt.ExprRef("dot"))
    return alt.LayerChart(
        layer=[
            _named_data("chosen").mark_rule(strokeDash=[3, 3], color="#808080").encode(x),
            seeds.mark_line(strokeWidth=1, opacity=0.45, invalid="break-paths-show-domains"),
            main.mark_line(strokeWidth=2.2, invalid="break-paths-show-domains", point=dot),
            nonfinite,
            zeros,
        ]
    )


def _specification(chart: alt.LayerChart) -> dict[str, Any]:
    spec: dict[str, Any] = chart.to_dict()
    # The page adds its own configuration, with the colours of its theme.
    return {name: part for name, part in spec.items() if name not in ("config", "$schema")}


def _named_data(name: str) -> alt.Chart:
    return alt.Chart(alt.NamedData(name=name))


def _scale_between(low: str, high: str, **options: Any) -> alt.Scale:
    # The domain is given explicitly: for an empty data set Vega-Lite would make it infinite.
    return alt.Scale(
        domain=[alt.ExprRef(low), alt.ExprRef(high)], **{"nice": False, "round": True, **options}
    )


def _cell_layer(name: str) -> alt.Chart:
    x = alt.X(
        "x:Q",
        title="epoch",
        scale=_scale_between("first", "last"),
        axis=alt.Axis(values=alt.ExprRef("marks"), format="d", grid=False),
    )
    y = alt.Y(
        "y:Q",
        title="depth",
        scale=_scale_between("0", "rows"),
        axis=alt.Axis(
            values=alt.ExprRef("ticks"),
            labelExpr="labels[indexof(ticks, datum.value)]",
            grid=False,
        ),
    )
    return _named_data(name).encode(x, y, alt.X2("x2:Q"), alt.Y2("y2:Q"))


def _colour_scale(kind: str) -> alt.Color:
    scale = alt.Scale(
        type="log" if kind == "log" else "linear",
        domain=[alt.ExprRef("low"), alt.ExprRef("high")],
        nice=False,
        clamp=True,
        # In grey print viridis keeps its order; blueorange does so only on each side of 0.
        scheme="blueorange" if kind == "diverging" else "viridis",
    )
    legend = alt.Legend(
        orient="bottom",
        direction="horizontal",
        title=VALUE_TITLE,
        tickCount=4,
        offset=8,
        gradientLength=alt.ExprRef("max(120, width - 40)"),
        gradientThickness=10,
        titleLimit=300,
        labelExpr=_NUMBER_LABEL,
    )
    return alt.Color("c:Q", scale=scale, legend=legend)
