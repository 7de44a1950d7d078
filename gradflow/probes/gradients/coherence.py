"""The probe `gradient_coherence`: do the gradients of single images point in the same direction?

Images with opposing gradients undo each other's progress: gradient confusion (Sankararaman et al.
2020, The impact of neural network overparameterization on gradient confusion). Shattered gradients
cancel in the mean (Balduzzi et al. 2017).
"""

from typing import Any

import torch
from torch import Tensor

from gradflow.probes.gradients.sample_gradients import gradient_products
from gradflow.probes.probe import NotMeasurableError, Probe, Subject, Tables, When

WHOLE_MODEL = "(model)"


def gradient_coherence(subject: Subject, samples: int = 16) -> Tables:
    """The columns of the table `gradient_coherence` for the first `samples` images of the batch.

    The gradients of the cross-entropy of each image are exact, with batch-norm statistics frozen
    at their running values. An image with gradient zero in a layer has no cosines there. The
    cosines of a layer are missing if fewer than two images have a gradient; its signal-to-noise
    ratio is missing if all gradients are equal.

    Raises `NotMeasurableError` for a batch of fewer than two images, and if the gradients of
    single images cannot be separated; see `gradient_products`.
    """
    images, targets = subject.batch.images[:samples], subject.batch.targets[:samples]
    if len(images) < 2:
        raise NotMeasurableError(f"two images are needed, but the batch has {len(images)}")
    products = gradient_products(subject.model.eval(), images, targets)
    products[WHOLE_MODEL] = torch.stack(list(products.values())).sum(0)
    columns: dict[str, list[Any]] = {
        "layer": list(products),
        "samples": [len(images)] * len(products),
        "mean_cosine": [],
        "min_cosine": [],
        "signal_to_noise": [signal_to_noise(product) for product in products.values()],
    }
    for product in products.values():
        cosines = pairwise_cosines(product)
        columns["mean_cosine"].append(float(cosines.mean()) if len(cosines) else None)
        columns["min_cosine"].append(float(cosines.min()) if len(cosines) else None)
    return {"gradient_coherence": columns}


def pairwise_cosines(products: Tensor) -> Tensor:
    """<g_i, g_j> / (|g_i| |g_j|) for all pairs i < j of non-zero vectors, from <g_i, g_j> [n, n].

    A product of nan gives a cosine of nan.
    """
    norms = products.diagonal().sqrt()
    given = norms != 0
    cosines = products[given][:, given] / torch.outer(norms[given], norms[given])
    i, j = torch.triu_indices(len(cosines), len(cosines), offset=1)
    return cosines[i, j]


def signal_to_noise(products: Tensor) -> float | None:
    """|G|^2 / tr(S) from <g_i, g_j> [n, n], |G|^2 and tr(S) unbiased; None if tr(S) is 0.

    tr(S) = (sum |g_i|^2 - n |m|^2) / (n - 1) and |G|^2 = |m|^2 - tr(S) / n, m the mean of the g_i.
    The tr(S) of n equal vectors is 0 up to rounding, and counts as 0.
    """
    n = len(products)
    squared_mean = float(products.sum()) / n**2
    trace = float(products.trace())
    noise = (trace - n * squared_mean) / (n - 1)
    if noise <= 1e-6 * trace:
        return None
    return (squared_mean - noise / n) / noise


PROBE = Probe("gradient_coherence", ("gradient_coherence",), When.EVERY_EPOCH, gradient_coherence)
