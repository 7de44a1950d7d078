"""The figures of path lengths: share of the gradient by length, effective length by epoch."""

from functools import partial

from matplotlib.figure import Figure as Drawing

from analyses.plotting import panels, theme
from analyses.result import Figure, Length
from analyses.skips.path_lengths.measure import PathLengths
from analyses.wording.numbers import number
from analyses.wording.phrases import listing
from analyses.wording.translatable import Numeral, Said, message


def path_figures(networks: list[str], profiles: list[PathLengths]) -> tuple[Figure, ...]:
    """The figures of `profiles`; `networks` in the order of the experiment gives the colors."""
    figures = [_length_figure(networks, profiles)]
    if any(len(one.epochs) > 1 for one in profiles):
        figures.append(_epoch_figure(networks, profiles))
    return tuple(figures)


def _title(profiles: list[PathLengths]) -> str:
    said = [
        Said(
            "{count} of {blocks} branches in {network}",
            count=number(one.by_share.value),
            blocks=Numeral(f"{one.blocks}"),
            network=one.network,
        )
        for one in profiles
        if one.by_share.value is not None
    ]
    return (
        Said("Weighted by its share, the gradient passes {lengths}", lengths=listing(said))
        if said
        else message("No effective path length could be computed")
    )


def _length_figure(networks: list[str], profiles: list[PathLengths]) -> Figure:
    return Figure(
        key="share-by-length",
        title=_title(profiles),
        caption=(
            "The gradient's share by path length at the first recorded epoch (dashed, open "
            "markers) and the last (solid), and of the norms |g_k| at the last (dotted). Bars: all "
            "paths, Binomial(n, 1/2), of which half the blocks (vertical line) is the mean. "
            "Averaged over seeds."
        ),
        alt=f"Share of the gradient by path length. {_title(profiles)}.",
        draw=partial(_draw_lengths, networks, profiles),
    )


@theme.themed
def _draw_lengths(networks: list[str], profiles: list[PathLengths]) -> Drawing:
    styles = theme.styles(networks)
    titles = [one.network for one in profiles]
    labels = ("share of the gradient", "path length (branches)")
    with panels.row(titles, 2.8, *labels) as (figure, axes):
        for axis, one in zip(axes, profiles, strict=True):
            lengths = one.shares.index.to_numpy(dtype=float)
            axis.bar(range(one.blocks + 1), one.all_paths, color="#d0d0d0", label="of all paths")
            axis.axvline(one.blocks / 2, color=theme.GREY, lw=0.9, zorder=1)
            style = {"ms": 3.5, "lw": 1.2, **styles[one.network]}
            epochs = list(one.shares.columns)
            if len(epochs) > 1:
                first = style | {"ls": "--", "mfc": "white", "label": f"share, epoch {epochs[0]}"}
                axis.plot(lengths, one.shares[epochs[0]], **first)
            axis.plot(lengths, one.shares[epochs[-1]], label=f"share, epoch {epochs[-1]}", **style)
            axis.plot(
                one.norms.index.to_numpy(dtype=float),
                one.norms[epochs[-1]],
                ":",
                color=style["color"],
                label=f"of the norms, epoch {epochs[-1]}",
            )
            panels.level_line(axis, 0, style="-")
    return figure


def _epoch_figure(networks: list[str], profiles: list[PathLengths]) -> Figure:
    said = [
        f"from {number(ends.iloc[0])} to {number(ends.iloc[-1])} branches in {one.network}"
        for one in profiles
        if len(ends := one.epochs["by share"].dropna()) > 1
    ]
    title = (
        f"Over training the effective path length goes {listing(said)}"
        if said
        else "The effective path length could not be computed at two epochs"
    )
    return Figure(
        key="effective-length",
        title=title,
        caption=(
            "Effective path length by epoch, averaged over seeds: weighted by the share of the "
            "gradient (solid) and by the norm |g_k|, as in Veit et al. (dotted). Dashed grey: half "
            "the blocks, the mean length of all paths."
        ),
        alt=f"Effective path length by epoch. {title}.",
        draw=partial(_draw_epochs, networks, profiles),
        length=Length.FULL,
    )


@theme.themed
def _draw_epochs(networks: list[str], profiles: list[PathLengths]) -> Drawing:
    styles = theme.styles(networks)
    with panels.panel(2.5, "effective length (branches)") as (figure, axis):
        for one in profiles:
            for name, line in (("by share", "-"), ("by norm", ":")):
                style = {"ls": line, "label": f"{one.network}, {name}", **styles[one.network]}
                panels.curve(axis, one.epochs, "epoch", name, **style)
        for blocks in dict.fromkeys(one.blocks for one in profiles):
            panels.level_line(axis, blocks / 2, f"half of {blocks} blocks")
        axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
    return figure
