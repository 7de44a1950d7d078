"""`gradflow.probes.lesions`: what is lost if one branch of a trained model is deleted."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow.hooks.wrappers import unwrapped
from gradflow.probes.any_model.passes import (
    Addition,
    Reweighted,
    Weights,
    first_pass,
    in_evaluation_mode,
    number,
    run,
)

if TYPE_CHECKING:
    import pandas as pd

Measure = Callable[[Any, Any], Tensor | float]
_WITHOUT_BRANCH = Weights(skip=1.0, branch=0.0)


def lesions(
    model: nn.Module, inputs: Any, targets: Any, measure: Measure = F.cross_entropy
) -> "pd.DataFrame":
    """Delete the branch of one residual addition after the other, and measure the output.

        lost = gradflow.probes.lesions(model, images, labels)
        lost.sort_values("change")  # the layer last that is missed most

    A deleted addition passes on its skip. If paths of many lengths share the work, no single
    branch is missed (Veit et al. 2016, Residual networks behave like ensembles of relatively
    shallow networks). Batch norms keep their running statistics, as in the paper.

    The additions are those that the tracer finds (`run.junctions`), in any architecture. The model
    runs in evaluation mode, once and once for each. It stays as it is, and its inputs too.

    Args:
        model: any module with residual additions; its additions must be the same for every run.
        inputs: a tensor, a tuple of arguments, or a mapping of keyword arguments.
        targets: what `measure` compares the output with.
        measure: called with what the model returns and with `targets`; a loss or an accuracy.

    Returns: a row per addition, in order: `layer`, the name that the addition has in
    `run.junctions`; `skip_type`; `intact`, what `measure` gives for the whole model; `lesioned`,
    the same without this branch; `change`, their difference. Missing where skip and branch are not
    added by one call of `+` or `torch.add`, and cannot be told apart.

    Raises `gradflow.probes.NotMeasurableError` if the model has no residual addition.
    """
    import pandas as pd  # noqa: PLC0415 - takes half a second, and only this needs it

    model = unwrapped(model)[0]
    with in_evaluation_mode(model):
        found = first_pass(model, inputs)
        intact = number(measure(found.output, targets))
        lesioned = [_lesioned(model, one, inputs, targets, measure) for one in found.additions]
    return pd.DataFrame(
        {
            "layer": [one.layer for one in found.additions],
            "skip_type": [one.skip_type for one in found.additions],
            "intact": intact,
            "lesioned": lesioned,
            "change": [value - intact for value in lesioned],
        }
    )


def _lesioned(
    model: nn.Module, addition: Addition, inputs: Any, targets: Any, measure: Measure
) -> float:
    if addition.call is None:
        return math.nan
    # With gradients, because some layers of PyTorch compute without them in another way.
    with torch.enable_grad(), Reweighted({addition.call: _WITHOUT_BRANCH}):
        output = run(model, inputs)
    return number(measure(output, targets))
