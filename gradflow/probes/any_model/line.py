"""`gradflow.probes.shattering`: how fast the gradient changes along a line between two inputs."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradflow.hooks.wrappers import unwrapped
from gradflow.probes.any_model.passes import in_evaluation_mode
from gradflow.probes.gradients.shattering import autocorrelation, line_between

if TYPE_CHECKING:
    import pandas as pd


def shattering(
    model: nn.Module,
    first: Tensor,
    last: Tensor,
    of: Callable[[Any], Tensor] | None = None,
    *,
    points: int = 64,
    lags: int = 16,
) -> "pd.DataFrame":
    """Tell how similar the gradient stays along the straight line from one input to another.

        curve = gradflow.probes.shattering(model, images[0], images[1], of=lambda out: out[:, 3])
        curve.plot("lag", "autocorrelation")

    In a deep plain network the gradient with respect to the input resembles white noise, which is
    unlike itself one point further; with skips it stays similar (Balduzzi et al. 2017, The
    shattered gradients problem, figure 1). With d(t) the gradient with respect to the input at
    point t less its mean over the line, the autocorrelation at a lag is the mean over t of
    <d(t), d(t + lag)>, divided by that of lag 0. For white noise it is about -1 / points.

    The points are one batch. The model runs in evaluation mode, so they do not influence one
    another, and stays as it is.

    Args:
        model: any module that takes a batch of real numbers.
        first, last: the ends of the line, single inputs without the batch's axis.
        of: called with what the model returns for the batch; returns one number per point. Without
            it, the sum of a point's outputs.
        points: points at equal distances, both ends included.
        lags: number of lags, from 0; at most `points`.

    Returns: a row per `lag`: `distance`, its length on the line in units of the inputs, and
    `autocorrelation`, missing if the gradient does not change.

    Raises `ValueError` for lags that the points do not have.
    """
    import pandas as pd  # noqa: PLC0415 - takes half a second, and only this needs it

    if not 1 <= lags <= points:
        raise ValueError(f"{points} points have lags 0 to {points - 1}, so not {lags} of them")
    model = unwrapped(model)[0]
    line = line_between(first.detach(), last.detach(), points).requires_grad_()
    with in_evaluation_mode(model), torch.enable_grad():
        # Not a leaf, because a model's first layer may work in place.
        output = model(line.clone())
        chosen = output.reshape(len(output), -1).sum(1) if of is None else of(output)
        (gradient,) = torch.autograd.grad(chosen.sum(), line)
    curve = autocorrelation(gradient, lags)
    step = float((last - first).detach().double().norm()) / max(points - 1, 1)
    return pd.DataFrame(
        {
            "lag": range(lags),
            "distance": [step * lag for lag in range(lags)],
            "autocorrelation": [math.nan] * lags if curve is None else curve.tolist(),
        }
    )
