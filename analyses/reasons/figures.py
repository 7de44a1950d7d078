"""The figure of the possible reasons: a row each on a scale of its own, and the evidence."""

from functools import partial
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator

from analyses.plotting import panels, theme
from analyses.reasons.evidence import Evidence, NetworkComparison
from analyses.result import Figure
from analyses.wording.phrases import plural, slug
from analyses.wording.translatable import Numeral, Said

ROW_HEIGHT = 0.62  # inches


def reasons_figure(networks: list[str], one: NetworkComparison) -> Figure:
    """The figure of one pair; the order of `networks` in the experiment gives the colours."""
    differing = sum(_differs(each) for each in one.evidence)
    pair = one.pair
    title = Said(
        "Between {plain} and {residual} {count} of {reasons} certainly differs"
        if differing == 1
        else "Between {plain} and {residual} {count} of {reasons} certainly differ",
        plain=pair.plain,
        residual=pair.residual,
        count=Numeral(f"{differing}"),
        reasons=plural(len(one.evidence), "possible reason"),
    )
    return Figure(
        key=slug(f"candidates-{pair.plain}-{pair.residual}"),
        title=title,
        caption=(
            "Each possible reason in both networks: mean with 95 % interval (over seeds if there "
            "are three or more, else over steps or epochs). Each has its own scale, on which a "
            "difference too small to matter looks small. At the right: how far the evidence goes; "
            "only an intervention can show a cause."
        ),
        alt=f"Values of each possible reason in both networks. {title}.",
        draw=partial(_draw, networks, one),
    )


def _differs(each: Evidence) -> bool:
    gap = each.difference
    return bool(gap and gap.low is not None and gap.high is not None and gap.low * gap.high > 0)


@theme.themed
def _draw(networks: list[str], one: NetworkComparison) -> Drawing:
    figure, axes = panels.subplots(len(one.evidence), 1, 0.5 + ROW_HEIGHT * len(one.evidence))
    styles = theme.styles(networks)
    for axis, each in zip(axes[:, 0], one.evidence, strict=True):
        for height, network, mean in (
            (1, one.pair.plain, each.plain),
            (0, one.pair.residual, each.residual),
        ):
            if mean is None or mean.value is None:
                continue
            style = {"ls": "", "ms": 5, "label": network, **styles[network]}
            axis.plot(each.reason.shown(mean.value), height, **style)
            if mean.low is not None and mean.high is not None:
                ends = (each.reason.shown(mean.low), each.reason.shown(mean.high))
                axis.hlines(height, *ends, color=styles[network]["color"], lw=1.4)
        _style_row(axis, each)
    panels.legend(figure, list(axes[:, 0]))
    return figure


def _style_row(axis: Axes, each: Evidence) -> None:
    unit = f" ({each.reason.unit})" if each.reason.unit else ""
    axis.set_ylim(-0.7, 1.7)
    axis.set_yticks([])
    axis.grid(False)
    axis.grid(True, axis="x", color=theme.GRID, linewidth=0.6)
    axis.spines["left"].set_visible(False)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=5))
    _widen(axis, each)
    name = fill(f"{each.reason.name}{unit}", 18)
    axis.set_ylabel(name, rotation=0, ha="right", va="center")
    axis.annotate(
        fill(str(each.level), 19),
        (1.02, 0.5),
        xycoords="axes fraction",
        va="center",
        fontsize=theme.SMALL_TEXT_SIZE,
    )


def _widen(axis: Axes, each: Evidence) -> None:
    """Show at least three margins on either side, so that small differences look small."""
    axis.margins(x=0.12)
    values = [mean.value for mean in (each.plain, each.residual) if mean and mean.value is not None]
    if not values:
        axis.set_xticks([])
        axis.annotate("not recorded", (0.5, 0.5), xycoords="axes fraction", color=theme.GREY)
    else:
        middle, reach = sum(values) / len(values), 3 * each.reason.margin
        low, high = axis.get_xlim()
        ends = (each.reason.shown(middle - reach), each.reason.shown(middle + reach))
        axis.set_xlim(min(low, ends[0]), max(high, ends[1]))
