"""The entries of `run.json` about versions, device and how the run was traced."""

import platform
from collections import Counter
from typing import Any

import torch
from torch import nn

from gradflow import __version__


def environment(model: nn.Module, schedule: str, histograms: str) -> dict[str, Any]:
    """Return the entries of `run.json` that every run has.

    `schedule` describes which steps are recorded, `histograms` which of them have histograms.
    """
    types = Counter(str(one.dtype).removeprefix("torch.") for one in model.parameters())
    return {
        "network": type(model).__name__,
        "versions": {
            "gradflow": __version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
        "device": str(device_of(model)),
        "parameter_types": dict(types),
        "threads": torch.get_num_threads(),
        "tracing": {
            "schedule": schedule,
            "histograms": histograms,
            "layer_gradients": "as back-propagated, divided by the scale if a scaler was given; "
            "all passes of a step count as one batch",
            "parameter_gradients": "as the optimizer applies them, after accumulation, unscaling "
            "and clipping",
        },
    }


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the first parameter; the CPU if there is none."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
