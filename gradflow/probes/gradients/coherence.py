"""Do the gradients of single images point the same way, layer by layer?

Images whose gradients disagree undo one another's progress: gradient confusion (Sankararaman et al.
2020, The impact of neural network overparameterization on gradient confusion). Of shattered
gradients nothing is left in the mean (Balduzzi et al. 2017).
"""

from typing import Any

import torch
from torch import Tensor

from gradflow.probes.gradients.sample_gradients import gradient_products
from gradflow.probes.probe import NotMeasurableError, Probe, Subject, Tables, When

WHOLE_MODEL = "(model)"


def gradient_coherence(subject: Subject, samples: int = 16) -> Tables:
    """The columns of the table `gradient_coherence` for the first `samples` images of the batch.

    Exact gradients of the cross-entropy of each image, batch-norm statistics frozen at their
    running values. An image that leaves a layer without gradient has no cosine with any other. A
    layer without two images that have a gradient has none at all, and one whose gradients are all
    alike has no signal-to-noise ratio: both are missing then.

    Raises `NotMeasurableError` for a batch of fewer than two images, and where the gradients of
    single images cannot be told apart; see `gradient_products`.
    """
    images, targets = subject.batch.images[:samples], subject.batch.targets[:samples]
    if len(images) < 2:
        raise NotMeasurableError(f"pairs of images are needed; the batch has {len(images)}")
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
    """<g_i, g_j> / (|g_i| |g_j|) for all pairs i < j without a zero vector, from <g_i, g_j> [n, n].

    Products that are nan give nan.
    """
    norms = products.diagonal().sqrt()
    given = norms != 0
    cosines = products[given][:, given] / torch.outer(norms[given], norms[given])
    i, j = torch.triu_indices(len(cosines), len(cosines), offset=1)
    return cosines[i, j]


def signal_to_noise(products: Tensor) -> float | None:
    """|G|^2 / tr(S) from <g_i, g_j> [n, n], |G|^2 and tr(S) unbiased; None where tr(S) is 0.

    tr(S) = (sum |g_i|^2 - n |m|^2) / (n - 1) and |G|^2 = |m|^2 - tr(S) / n, m the mean of the g_i.
    The covariance of n equal vectors is 0 up to rounding, and is taken for 0 then.
    """
    n = len(products)
    squared_mean = float(products.sum()) / n**2
    trace = float(products.trace())
    noise = (trace - n * squared_mean) / (n - 1)
    if noise <= 1e-6 * trace:
        return None
    return (squared_mean - noise / n) / noise


PROBE = Probe("gradient_coherence", ("gradient_coherence",), When.EVERY_EPOCH, gradient_coherence)
