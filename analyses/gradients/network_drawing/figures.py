"""The figures of drawn networks, and the values for their slider over the epochs."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from analyses.gradients.network_drawing.flows import Flows, name_range
from analyses.gradients.network_drawing.marks import (
    TIMES,
    Scale,
    factor_text,
    head_size,
    scale_for,
    times,
)
from analyses.gradients.network_drawing.sheet import (
    Sheet,
    draw_sheet,
    pieces,
    sheets_of,
    stage_gid,
)
from analyses.result import Figure, Slider
from analyses.wording.numbers import number
from analyses.wording.phrases import listing, plural
from analyses.wording.translatable import Numeral, Said

MAX_POSITIONS = 60


def network_figures(flows: Sequence[Flows], most: int = MAX_POSITIONS) -> tuple[Figure, ...]:
    """The drawings of the networks, side by side while they fit, with at most `most` epochs."""
    values = np.concatenate([one.relative.to_numpy(dtype=float).ravel() for one in flows])
    scale = scale_for(values)
    sheets = sheets_of(flows)
    return tuple(
        _figure(sheet, scale, "networks" if place == 0 else f"networks-{place + 1}", most)
        for place, sheet in enumerate(sheets)
    )


def shown_epoch(flows: Sequence[Flows]) -> int:
    """The last epoch at which every network has a gradient; else the last one of any network."""
    drawn = [set(one.relative.columns[one.relative.notna().any()]) for one in flows]
    common = set.intersection(*drawn) or set.union(*drawn)
    return int(max(common or {int(one.relative.columns[-1]) for one in flows}))


def title_of(flows: Sequence[Flows], epoch: int) -> str:
    """The finding that the drawing shows."""
    skipping = [
        Said(
            "{share} of the gradient in {network}",
            share=number(share),
            network=one.layout.network,
        )
        for one in flows
        if np.isfinite(share := mean_share(one, epoch))
    ]
    if skipping:
        return Said(
            "At epoch {epoch} the skips carry {shares}",
            epoch=Numeral(f"{epoch}"),
            shares=listing(skipping),
        )
    said = [
        Said(
            "{factor} in {where} of {network}",
            factor=factor,
            where=where,
            network=one.layout.network,
        )
        for one in flows
        for factor, where in [largest_change(one, epoch)]
        if where
    ]
    if said:
        return Said(
            "At epoch {epoch} the gradient within a stage changes by up to {changes}",
            epoch=Numeral(f"{epoch}"),
            changes=listing(said),
        )
    return Said("The gradient at epoch {epoch}", epoch=Numeral(f"{epoch}"))


def mean_share(one: Flows, epoch: int) -> float:
    """The skip's share of the gradient, averaged over the residual additions."""
    return float(one.shares[epoch].mean()) if len(one.shares) else float("nan")


def largest_change(one: Flows, epoch: int) -> tuple[str, str]:
    """The largest change of the gradient over a stage, and the stage; "" if there is none."""
    factors = [
        (float(one.factor(place)[epoch]), stage.name or times(stage.shape))
        for place, stage in enumerate(one.layout.stages)
        if stage.last > stage.first
    ]
    usable = [(value, name) for value, name in factors if np.isfinite(value) and value > 0]
    if not usable:
        return "", ""
    value, name = max(usable, key=lambda pair: abs(np.log(pair[0])))
    return f"{TIMES}{number(value)}", name


def _figure(sheet: Sheet, scale: Scale, key: str, most: int) -> Figure:
    epoch = shown_epoch(sheet.flows)
    sheet_flows = [_with_epoch(one, epoch) for one in sheet.flows]
    sheet = Sheet(tuple(sheet_flows), sheet.places, sheet.first, sheet.columns)
    title = title_of(sheet.flows, epoch)
    epochs = _positions(sheet, epoch, most)
    return Figure(
        key=key,
        title=title,
        caption=_caption(sheet, scale, epoch) + _slider_note(len(epochs), sheet),
        alt=f"{_alt(sheet)} {title}.",
        draw=partial(draw_sheet, sheet, scale, epoch),
        slider=_slider(sheet, scale, epochs, epoch) if len(epochs) > 1 else None,
    )


def _with_epoch(one: Flows, epoch: int) -> Flows:
    """The flows with a column for `epoch`, missing if the network has none."""
    columns = sorted({*one.relative.columns, epoch})
    return Flows(
        one.layout, one.arrows, one.relative.reindex(columns=columns),
        one.norm.reindex(columns=columns), one.shares.reindex(columns=columns), one.seeds,
    )  # fmt: skip


def _positions(sheet: Sheet, shown: int, most: int) -> list[int]:
    """The epochs of the slider: evenly spaced, with the first, the last and the shown one."""
    epochs = sorted({int(epoch) for one in sheet.flows for epoch in one.relative.columns})
    places = np.linspace(0, len(epochs) - 1, min(len(epochs), most)).round().astype(int)
    return sorted({*(epochs[place] for place in places), shown})


def _caption(sheet: Sheet, scale: Scale, epoch: int) -> str:
    seeds = max(one.seeds for one in sheet.flows)
    over = "" if seeds == 1 else f", geometric mean over {plural(seeds, 'seed')}"
    grouped = any(box.members > 1 for one in sheet.flows for box in one.layout.boxes)
    unplaced = [
        f"{plural(len(one.layout.unplaced), 'residual addition')} of {one.layout.network}"
        for one in sheet.flows
        if one.layout.unplaced
    ]
    width = "proportional to" if scale.linear else "the logarithm of"
    return " ".join(
        [
            f"Backward through the network at epoch {epoch}, from the loss at the bottom to the "
            f"input at the top. Width of an arrow: {width} the norm of the gradient that arrives "
            f"at its head, median over the steps of the epoch{over}, relative to that at the end "
            "of its stage, a band of blocks whose outputs have one shape. Widths of different "
            "stages do not compare, because their tensors differ in size.",
            *(["Orange, dashed: what comes through the branch; green: along the skip beside it; "
               "both are measured where they join, at the block's input, and add up there as "
               "vectors."] if any(one.layout.skips for one in sheet.flows) else []),
            *(["A box with others behind it stands for several blocks; its skip and branch are "
               "their geometric means."] if grouped else []),
            *([f"Not drawn: {listing(unplaced)}, whose skips could not be located in the trace."]
              if unplaced else []),
        ]
    )  # fmt: skip


def _slider_note(positions: int, sheet: Sheet) -> str:
    """A sentence on the epochs that the slider leaves out; empty if it has all of them."""
    recorded = len({epoch for one in sheet.flows for epoch in one.relative.columns})
    if positions >= recorded:
        return ""
    return f" On a page with a slider it stops at {positions} of the {recorded} epochs."


def _alt(sheet: Sheet) -> str:
    said = [
        f"{one.layout.network}, {plural(sum(box.members for box in one.layout.boxes), 'block')} in "
        f"{plural(len(one.layout.stages), 'stage')} with "
        f"{plural(sum(len(skip.names) for skip in one.layout.skips), 'skip')}"
        for one in sheet.flows
    ]
    return f"Drawing of {listing(said)}, the gradient as arrows of different width."


def _slider(sheet: Sheet, scale: Scale, epochs: Sequence[int], shown: int) -> Slider:
    widths: dict[str, tuple[float, ...]] = {}
    sizes: dict[str, tuple[float, ...]] = {}
    names: dict[str, str] = {}
    texts: dict[str, tuple[str, ...]] = {}
    for network, one in enumerate(sheet.flows):
        relative, norm = (frame.reindex(columns=epochs) for frame in (one.relative, one.norm))
        for row, arrow in enumerate(one.arrows):
            wide = [scale.width(float(value)) for value in relative.iloc[row]]
            drawn = head_size(scale.width(float(one.relative[shown].iloc[row]))) or 0.001
            for piece in pieces(sheet, network, arrow):
                widths[piece.gid] = tuple(wide)
                names[piece.gid] = f"{one.layout.network}: {arrow.name}"
                texts[piece.gid] = _slider_texts(relative.iloc[row], norm.iloc[row])
                if piece.head is not None:
                    sizes[f"{piece.gid}-head"] = tuple(
                        round(head_size(width) / drawn, 3) for width in wide
                    )
        for place, stage in enumerate(one.layout.stages):
            if stage.last > stage.first:
                factors = one.factor(place).reindex(epochs)
                texts[stage_gid(network, place)] = tuple(factor_text(x) for x in factors)
    positions = tuple(str(epoch) for epoch in epochs)
    return Slider("epoch", positions, epochs.index(shown), widths, sizes, names, texts)


def _slider_texts(relative: pd.Series, norm: pd.Series) -> tuple[str, ...]:
    return tuple(
        f"{number(a)}{TIMES} (norm {number(b)})" if np.isfinite(a)
        else f"norm {number(b)}" if np.isfinite(b)
        else "not recorded"
        for a, b in zip(relative.to_numpy(dtype=float), norm.to_numpy(dtype=float), strict=True)
    )  # fmt: skip


def arrow_table(flows: Sequence[Flows], epoch: int) -> pd.DataFrame:
    """The drawn values, one row a box or skip: the gradient at the output, its parts at the input.

    All values but the norm are relative to the end of the stage.
    """
    rows = []
    for one in flows:
        relative, norm = (
            frame.reindex(columns=[epoch])[epoch] for frame in (one.relative, one.norm)
        )
        for place, box in enumerate(one.layout.boxes):
            trunk = one.row("trunk", place)
            row = {
                "network": one.layout.network,
                "block": box.name,
                "output shape": box.shape,
                "gradient at its output": relative.iloc[trunk],
                "norm at its output": norm.iloc[trunk],
            }
            ending = [k for k, skip in enumerate(one.layout.skips) if skip.end == place]
            for k in ending:
                rows.append(
                    row
                    | {"block": name_range(one.layout.skips[k].names)}
                    | {f"{kind} at its input": relative.iloc[one.row(kind, k)]
                       for kind in ("skip", "branch")}
                )  # fmt: skip
            if not ending:
                rows.append(row)
    return pd.DataFrame(rows)
