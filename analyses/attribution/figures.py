"""The figures of attribution: images with their integrated gradients and Grad-CAM."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Drawing

from analyses.attribution.measure import (
    FIRST_OF_CLASS,
    GRAD_CAM,
    INTEGRATED_GRADIENTS,
    AttributedImage,
)
from analyses.plotting import panels, theme
from analyses.result import Figure, Length
from analyses.statistics import Array
from analyses.wording.numbers import percent
from analyses.wording.phrases import listing, plural

# Colour-blind readers can read both maps. Both brighten throughout, so a grey print tells low from
# high, and against from for.
DIVERGING, SEQUENTIAL = "cividis", "inferno"
FULL_COLOUR_QUANTILE = 0.99  # of |values|, shown in full colour: single pixels may exceed it
ROW_HEIGHT = 1.03  # inches
MAX_COLUMNS = 6
TINY_TEXT_SIZE = 6.5

SameImage = tuple[
    AttributedImage, ...
]  # one image with the attributions of one or several networks


def first_of_class_figure(networks: dict[str, list[AttributedImage]], seed: str) -> Figure | None:
    """The first image of each class, for every network; None if the networks share no image."""
    found = [
        {one.image: one for one in looked if one.rule == FIRST_OF_CLASS}
        for looked in networks.values()
    ]
    images = [image for image in found[0] if all(image in one for one in found)][:MAX_COLUMNS]
    if not images:
        return None
    columns = [tuple(one[image] for one in found) for image in images]
    right = [
        f"{sum(column[place].right for column in columns)} by {name}"
        for place, name in enumerate(networks)
    ]
    return Figure(
        key="first-of-class",
        title=(
            f"Correct predictions on the first images of {plural(len(columns), 'class')}: "
            f"{listing(right)}"
        ),
        caption=_caption(
            columns,
            f"The first validation image of each class (at most {MAX_COLUMNS}), seed "
            f"{seed}: chosen without regard to any network.",
        ),
        alt="Images, their integrated gradients and their Grad-CAM, for each network.",
        draw=partial(_draw, columns),
        length=Length.FULL,
    )


def most_confident_figure(networks: dict[str, list[AttributedImage]], seed: str) -> Figure | None:
    """Each network's most confident wrong and right predictions; None if there are none."""
    chosen = [one for looked in networks.values() for one in looked if one.rule != FIRST_OF_CLASS]
    columns: list[SameImage] = [(one,) for one in chosen[:MAX_COLUMNS]]
    if not columns:
        return None
    sure = [
        f"{one.network} takes {one.target} for {one.prediction} ({percent(one.probability)} sure)"
        for one in chosen
        if not one.right
    ]
    return Figure(
        key="most-confident",
        title=(
            f"Most confident wrong predictions: {listing(sure)}"
            if sure
            else "No network predicts any further validation image wrongly"
        ),
        caption=_caption(
            columns,
            "Each network's most confident wrong and most confident right prediction "
            f"among the other validation images, seed {seed}: these depend on the network.",
        ),
        alt="Most confident predictions with their integrated gradients and Grad-CAM.",
        draw=partial(_draw, columns),
        length=Length.FULL,
    )


def _caption(columns: Sequence[SameImage], what: str) -> str:
    layers = {one.layers[GRAD_CAM] for column in columns for one in column if GRAD_CAM in one.maps}
    names = listing(sorted(layer for layer in layers if layer))
    return (
        f"{what} Above: true class. Below each picture: prediction and its probability. Integrated "
        "gradients, from a black image: yellow speaks for the prediction, blue against it, grey "
        "for neither. "
        f"Grad-CAM at {names or 'no layer'}, the last block that leaves 4 x 4 pixels: bright "
        "speaks for the prediction. Each picture has its own scale, in shares of its "
        f"{FULL_COLOUR_QUANTILE:.0%} quantile of absolute values (Grad-CAM: of its largest value)."
    )


@theme.themed
def _draw(columns: Sequence[SameImage]) -> Drawing:
    networks = len(columns[0])
    rows = 1 + 2 * networks
    figure, axes = panels.subplots(rows, max(len(columns), 3), ROW_HEIGHT * rows + 0.3)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(False)
        axis.spines[:].set_visible(False)
    for place, column in enumerate(columns):
        axes[0, place].imshow(column[0].pixels)
        own = f"{column[0].network}\n" if networks == 1 else ""
        axes[0, place].set_title(f"{own}{column[0].target}", fontsize=theme.SMALL_TEXT_SIZE)
        for number, one in enumerate(column):
            _show_maps(axes[1 + 2 * number : 3 + 2 * number, place], one)
    axes[0, 0].set_ylabel("image", fontsize=theme.SMALL_TEXT_SIZE)
    for number, one in enumerate(columns[0]):
        name = f"{one.network}\n" if networks > 1 else ""
        for row, method in enumerate(("integrated\ngradients", GRAD_CAM)):
            axis = axes[1 + 2 * number + row, 0]
            axis.set_ylabel(f"{name}{method}", fontsize=theme.SMALL_TEXT_SIZE)
    for axis in axes.flat:
        # What is not shown need not be laid out.
        axis.xaxis.set_visible(bool(axis.get_xlabel()))
        axis.yaxis.set_visible(bool(axis.get_ylabel()))
    for colour_map, low, label in (
        (SEQUENTIAL, 0.0, "Grad-CAM"),
        (DIVERGING, -1.0, "integrated gradients"),
    ):
        bar = figure.colorbar(
            ScalarMappable(Normalize(low, 1), colour_map),
            ax=list(axes.flat),
            location="right",
            shrink=0.5,
            aspect=40,
            pad=0.01,
            ticks=[low, 0, 1] if low else [0, 1],
        )
        bar.set_label(f"{label} (own scale)", fontsize=TINY_TEXT_SIZE)
        bar.ax.tick_params(labelsize=TINY_TEXT_SIZE)
    return figure


def _show_maps(axes: "np.ndarray[tuple[int], np.dtype[np.object_]]", one: AttributedImage) -> None:
    """Draw integrated gradients above Grad-CAM, and the prediction below."""
    upper, lower = axes
    assert isinstance(upper, Axes)
    assert isinstance(lower, Axes)
    if INTEGRATED_GRADIENTS in one.maps:
        values = one.maps[INTEGRATED_GRADIENTS]
        upper.imshow(_scaled(values, FULL_COLOUR_QUANTILE), cmap=DIVERGING, vmin=-1, vmax=1)
    if GRAD_CAM in one.maps:
        lower.imshow(_scaled(one.maps[GRAD_CAM], 1.0), cmap=SEQUENTIAL, vmin=0, vmax=1)
    lower.set_xlabel(
        f"{one.prediction}\n{one.probability:.0%}, {'right' if one.right else 'WRONG'}",
        fontsize=TINY_TEXT_SIZE,
        labelpad=2,
    )


def _scaled(values: Array, quantile: float) -> Array:
    """`values` over a quantile of their absolute values, or over the largest if that is 0."""
    size = np.abs(values)
    scale = float(np.quantile(size, quantile)) or float(size.max()) or 1.0
    scaled: Array = values / scale
    return scaled
