"""The probe `shattering`: how fast does the gradient decorrelate along a line between two images?

In a deep plain network the gradient with respect to the input resembles white noise; with skips it
stays correlated (Balduzzi et al. 2017, The shattered gradients problem). In the paper the line is
the whole input space; here it lies between two training images.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gradflow.probes.network.blocks import find_blocks
from gradflow.probes.network.calls import modules_with_parameters, record_calls
from gradflow.probes.probe import NotMeasurableError, Probe, Subject, Tables, When

INPUT = "(input)"
# If a network is linear along the line, its gradients differ only by rounding.
_ROUNDING = 64


def shattering(subject: Subject, lines: int = 2, points: int = 64, lags: int = 32) -> Tables:
    """The columns of the table `shattering`: lags 0 to `lags` - 1 for each layer.

    The gradient is that of the logit of the first image's class, with batch-norm statistics frozen
    at their running values. Line k runs from image 2k of the batch to image 2k + 1, as normalized
    for the network, with `points` points at equal distances, both ends included. The layers are the
    input, the stem and the blocks of gradflow's and torchvision's residual networks; in other
    networks, the modules with parameters.

    If a layer's gradient does not change along a line, the line has no autocorrelation. This is
    always so if only linear layers follow, e.g. after the last block. The value is missing if no
    line has one. For `points` independent draws the expected autocorrelation is not 0 but about
    -1 / `points`, because their mean is subtracted.

    Memory: as many points at once as the batch has images, and the gradients of one line.

    Raises `NotMeasurableError` for a batch of fewer than two images.
    """
    if not 1 <= lags <= points:
        raise ValueError(f"{points} points have lags 0 to {points - 1}, so not {lags} of them")
    images, targets = subject.batch.images, subject.batch.targets
    if len(images) < 2:
        raise NotMeasurableError(f"two images are needed, but the batch has {len(images)}")
    model = subject.model.eval().requires_grad_(False)
    curves: dict[str, list[Tensor]] = {}
    for first in range(0, 2 * min(lines, len(images) // 2), 2):
        line = line_between(images[first], images[first + 1], points)
        gradients = output_gradients(model, line, int(targets[first]), images_per_pass=len(images))
        for name, gradient in gradients.items():
            curve = autocorrelation(gradient, lags)
            curves.setdefault(name, []).extend([] if curve is None else [curve])
    return {"shattering": _columns(curves, points, lags)}


def line_between(first: Tensor, second: Tensor, points: int) -> Tensor:
    """Points [points, ...] at equal distances from `first` to `second`, both included."""
    place = torch.linspace(0, 1, points, dtype=first.dtype, device=first.device)
    place = place.view(-1, *[1] * first.dim())
    return (1 - place) * first + place * second


def output_gradients(
    model: nn.Module, images: Tensor, logit: int, images_per_pass: int
) -> dict[str, Tensor]:
    """The gradient of one logit with respect to each layer's output, [T, ...], for T images.

    Args:
        model: in evaluation mode, so that the images do not influence one another.
        images: [T, 3, H, W].
        logit: the index of the class.
        images_per_pass: images in each pass.
    """
    modules = layers_to_observe(model)
    parts: dict[str, list[Tensor]] = {}
    for chunk in images.split(images_per_pass):
        chunk_images = chunk.detach().clone().requires_grad_(True)
        calls = record_calls(modules, partial(_sum_of_logits, model, chunk_images, logit))
        assert chunk_images.grad is not None
        parts.setdefault(INPUT, []).append(chunk_images.grad)
        for call in calls:
            parts.setdefault(call.name, []).append(call.gradient)
    return {name: torch.cat(part) for name, part in parts.items()}


def _sum_of_logits(model: nn.Module, images: Tensor, logit: int) -> Tensor:
    # A copy, because a network's first layer may work in place, which a leaf tensor forbids.
    logits: Tensor = model(images.clone())
    return logits[:, logit].sum()


def layers_to_observe(model: nn.Module) -> dict[str, nn.Module]:
    """The last module of the stem, and the blocks; in other networks, modules with parameters."""
    found = {block.name: block.module for block in find_blocks(model)}
    if not found:
        return modules_with_parameters(model)
    stem: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if name in found:
            break
        if next(module.children(), None) is None:
            stem = {name: module}
    return stem | found


def autocorrelation(gradient: Tensor, lags: int) -> Tensor | None:
    """The autocorrelation of `gradient`, float64 [lags]; None if it is constant up to rounding.

    With d(t) = gradient(t) minus its mean over t:
    r(k) = (mean over the T - k pairs t of <d(t), d(t + k)>) / (mean over t of |d(t)|^2).

    Args:
        gradient: [T, ...].
        lags: number of lags, from 0; at most T.
    """
    flat = gradient.flatten(1)
    centered = flat - flat.mean(0)
    products = (centered @ centered.T).double()
    size = float(flat.double().square().sum())
    if float(products.trace()) <= (_ROUNDING * torch.finfo(flat.dtype).eps) ** 2 * size:
        return None
    covariance = torch.stack([products.diagonal(lag).mean() for lag in range(lags)])
    return (covariance / covariance[0]).cpu()


def _columns(curves: dict[str, list[Tensor]], points: int, lags: int) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        "layer": [name for name in curves for _ in range(lags)],
        "lag": list(range(lags)) * len(curves),
        "points": [points] * (lags * len(curves)),
        "autocorrelation": [],
    }
    for measured in curves.values():
        columns["autocorrelation"] += _mean(measured) or [None] * lags
    return columns


def _mean(curves: Sequence[Tensor]) -> list[float] | None:
    return torch.stack(list(curves)).mean(0).tolist() if curves else None


PROBE = Probe("shattering", ("shattering",), When.FIRST_AND_LAST, shattering)
