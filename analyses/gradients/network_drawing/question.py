"""Where does the gradient flow: through which blocks and skips of each network, and how much?

Description only: the networks are drawn from their traces, and no hypothesis is tested.
"""

import numpy as np

from analyses.gradients.network_drawing.figures import (
    arrow_table,
    largest_change,
    mean_share,
    network_figures,
    shown_epoch,
)
from analyses.gradients.network_drawing.flows import Flows, flows_of
from analyses.gradients.network_drawing.layout import MAX_BOXES, layout_of
from analyses.gradients.network_drawing.marks import TIMES
from analyses.reading.runs import by_network, runs_with
from analyses.registry import Analysis, NotApplicableError
from analyses.result import AnalysisResult, Table
from analyses.wording.numbers import number
from analyses.wording.phrases import plural
from gradflow.runs.reading.run import Experiment

# A drawing of more boxes would be unreadable.
_MAX_DRAWN = 400


def run(experiment: Experiment, most_boxes: int = MAX_BOXES) -> AnalysisResult:
    """Draw each network as boxes and arrows by epoch, condensed if it has over `most_boxes`.

    Raises `NotApplicableError` if no run recorded layers with weights and their gradients.
    """
    networks = by_network(runs_with(experiment, "gradients", "gradients by layer"))
    layouts = {name: layout_of(runs[0], most_boxes) for name, runs in networks.items()}
    flows = [
        flows_of(layout, networks[name])
        for name, layout in layouts.items()
        if 0 < len(layout.boxes) <= _MAX_DRAWN
    ]
    large = [name for name, layout in layouts.items() if len(layout.boxes) > _MAX_DRAWN]
    if large and not flows:
        raise NotApplicableError(
            f"{large[0]} has more than {_MAX_DRAWN} blocks of shapes that alternate, "
            "too many to draw"
        )
    if not flows:
        raise NotApplicableError(
            "no run lists a block or a layer with weights in its table of layers, "
            "so there is nothing to draw"
        )
    epoch = shown_epoch(flows)
    return AnalysisResult(
        summary=" ".join(
            [
                *(_sentence(one, epoch) for one in flows),
                *(f"{name} has more than {_MAX_DRAWN} blocks, too many to draw." for name in large),
            ]
        ),
        findings=(),
        figures=network_figures(flows),
        tables=(
            Table(
                "arrows",
                f"The gradient at each block at epoch {epoch}, relative to the end of its stage",
                arrow_table(flows, epoch),
            ),
        ),
        method=(
            "Boxes are the blocks and the remaining layers with weights in the table of layers, in "
            "order of execution; neighbours of one output shape make a stage. Skips are the "
            "recorded residual additions y = skip(x) + branch(x). The blocks under a skip "
            "follow from the names of the modules; if these are not enough, from recorded values "
            "that agree at every step: the norm of dL/dx with that of the gradient at some "
            "layer's output, or the variance of the branch's result with that of some layer's "
            "output. At each step an arrow's norm is divided by that at the output of the last "
            "block of the stage with its tensor's shape, because L2 norms of tensors of "
            "different size do not compare; a part of dL/dx whose shape was not observed is "
            "divided by |dL/dx|. Drawn are medians over the steps of an epoch, and their geometric "
            "mean over seeds. Concatenations are not drawn. The skip's share is <s, g> / <g, g> "
            "with g = s + b, median over steps, averaged over seeds and additions."
        ),
        sources=(
            "He et al. 2015, Deep residual learning for image recognition, figure 3 (the drawing)",
            "Veit et al. 2016, Residual networks behave like ensembles of relatively shallow "
            "networks",
        ),
    )


def _sentence(one: Flows, epoch: int) -> str:
    name = one.layout.network
    factor, where = largest_change(one, epoch)
    change = (
        f"the gradient changes most within {where}: from its end to its start it is multiplied by "
        f"{factor.removeprefix(TIMES)}"
        if where
        else "there is no gradient to compare within a stage"
    )
    if factor == f"{TIMES}1":
        change = f"the gradient keeps its size within {where}, from its end to its start"
    share = mean_share(one, epoch)
    if not np.isfinite(share):
        return f"In {name} at epoch {epoch} {change}."
    return (
        f"In {name} at epoch {epoch} the skips carry {number(share)} of the gradient, averaged "
        f"over {plural(len(one.shares), 'residual addition')}; {change}."
    )


ANALYSIS = Analysis(
    key="network_drawing",
    title="The network drawn",
    question="Where does the gradient flow?",
    run=run,
    background=(
        "Backpropagation passes the gradient from the loss at the bottom to the input at "
        "the top, through each block's branch and along its skip: where an arrow is wider, "
        "more gradient flows."
    ),
    order=15,
)
