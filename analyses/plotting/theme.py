"""The theme of all figures: size, fonts, lines, a colour and a marker for each network."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from importlib.metadata import version
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.figure import Figure

from analyses.showing.keeping import keep, read_kept

WIDTH = 6.7  # inches: the text column of an A4 page

NARROW_WIDTH = 3.6  # inches: at the width of a phone its text is as large as that of the page

TEXT_SIZE = 8.5

SMALL_TEXT_SIZE = 7.5

GREY = "#6b6b6b"

GRID = "#dddddd"

BAND_OPACITY = 0.16

# Okabe & Ito's colours without the two palest: colour-blind readers can tell them apart.
# Markers tell the networks apart in print without colour.
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

_MARKERS = ("o", "s", "^", "D", "v", "P")

_LEFT_OUT = ("font.sans-serif", "image.cmap")

P = ParamSpec("P")


@cache
def _style() -> dict[str, Any]:
    """seaborn's style "ticks", kept from an earlier report: loading seaborn takes a second."""
    name = f"style-{version('seaborn')}.json"
    text = read_kept(name)
    if text is None:
        import seaborn as sns  # noqa: PLC0415 - slow to load, seldom needed

        text = json.dumps(sns.axes_style("ticks"))
        keep(name, text)
    style: dict[str, Any] = json.loads(text)
    # seaborn's styles list fonts that may be missing; matplotlib's default is always present. Its
    # colour map is known only once seaborn is loaded; every figure names its own.
    return {key: value for key, value in style.items() if key not in _LEFT_OUT}


@contextmanager
def theme() -> Iterator[None]:
    """Apply the fonts, lines and spines of every figure inside the block."""
    settings: Any = {
        **_style(),
        "font.size": TEXT_SIZE,
        "axes.titlesize": TEXT_SIZE + 0.5,
        "axes.labelsize": TEXT_SIZE,
        "legend.fontsize": SMALL_TEXT_SIZE,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.7,
        "lines.linewidth": 1.5,
        "lines.markersize": 4,
        "legend.frameon": False,
        "figure.dpi": 120,
    }
    with mpl.rc_context(settings):
        yield


def themed(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw a figure under the common theme."""

    @wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with theme():
            return draw(*args, **kwargs)

    return inner


def colours(networks: Sequence[str]) -> dict[str, str]:
    """One colour per network, by its position in the experiment: the same in every figure."""
    return {name: _PALETTE[index % len(_PALETTE)] for index, name in enumerate(networks)}


def styles(networks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The colour and the marker of each network, as keywords of matplotlib's `plot`."""
    return {
        name: {"color": colour, "marker": _MARKERS[index % len(_MARKERS)]}
        for index, (name, colour) in enumerate(colours(networks).items())
    }
