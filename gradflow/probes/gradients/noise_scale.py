"""The probe `noise_scale`: above which batch size do larger batches stop helping? tr(S) / |G|^2.

McCandlish et al. 2018, An empirical model of large-batch training: the squared norms of gradients
of two batch sizes give unbiased estimates of |G|^2, the squared norm of the true gradient, and of
tr(S), the summed variances of one image's gradient. Average both over the draws before dividing.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from gradflow.data import Batch
from gradflow.probes.gradients.sample_gradients import gradient_products
from gradflow.probes.probe import NotMeasurableError, Probe, Subject, Tables, When
from gradflow.seeding import derived_seed


def noise_scale(
    subject: Subject, draws: int = 3, small_batch: int = 1, large_batch: int = 16
) -> Tables:
    """The columns of the table `noise_scale`, one row per draw.

    Each draw takes `large_batch` training images, with replacement, so the estimates are unbiased
    for all training images together (G their mean gradient, S the covariance, 1/n). The large
    batch is divided into the small ones, like the batches of single workers in the paper:
    |g_s|^2 is the mean over all of them, computed from the gradients of single images. Batch-norm
    statistics are frozen at their running values: with the statistics of a batch, the gradient of
    an image would depend on the other images.

    Args:
        subject: its `training_batches` are read twice.
        draws: number of independent draws.
        small_batch: images in a small batch.
        large_batch: images in a large batch, a multiple of `small_batch`.

    Raises `NotMeasurableError` if there are no training images, or if the gradients of single
    images cannot be separated; see `gradient_products`.
    """
    if large_batch % small_batch or large_batch <= small_batch:
        raise ValueError(
            f"a large batch of {large_batch} images cannot be divided into batches of {small_batch}"
        )
    count = sum(len(batch.targets) for batch in subject.training_batches())
    if not count:
        raise NotMeasurableError("there are no training images")
    generator = torch.Generator().manual_seed(
        derived_seed(subject.seed, subject.epoch, "noise_scale")
    )
    places = torch.randint(count, (draws * large_batch,), generator=generator)
    images, targets = _gather(subject.training_batches, places)
    model = subject.model.eval()
    columns: dict[str, list[Any]] = {
        "draw": list(range(draws)),
        "small_batch": [small_batch] * draws,
        "large_batch": [large_batch] * draws,
        "small_squared_norm": [],
        "large_squared_norm": [],
        "squared_gradient": [],
        "noise": [],
    }
    for x, y in zip(images.split(large_batch), targets.split(large_batch), strict=True):
        products = torch.stack(list(gradient_products(model, x, y).values())).sum(0)
        small_squared_norm, large_squared_norm = squared_norms(products, small_batch)
        squared_gradient, noise = estimate_signal_and_noise(
            small_squared_norm, large_squared_norm, small_batch, large_batch
        )
        columns["small_squared_norm"].append(small_squared_norm)
        columns["large_squared_norm"].append(large_squared_norm)
        columns["squared_gradient"].append(squared_gradient)
        columns["noise"].append(noise)
    return {"noise_scale": columns}


def squared_norms(products: Tensor, small_batch: int) -> tuple[float, float]:
    """The mean of |g_s|^2 over batches of `small_batch` images, and |g_b|^2 of all images.

    Args:
        products: [B, B], <g_i, g_j> of the gradients of single images; g_s and g_b are their means.
        small_batch: a divisor of B.
    """
    large_batch = len(products)
    parts = (
        products.unfold(0, small_batch, small_batch).unfold(1, small_batch, small_batch).sum((2, 3))
    )
    return float(parts.diagonal().mean()) / small_batch**2, float(products.sum()) / large_batch**2


def estimate_signal_and_noise(
    small_squared_norm: float, large_squared_norm: float, small_batch: int, large_batch: int
) -> tuple[float, float]:
    """|G|^2 and tr(S) from squared gradient norms at two batch sizes.

    They follow from E |g_B|^2 = |G|^2 + tr(S) / B. Either estimate may be negative.
    """
    difference = large_batch * large_squared_norm - small_batch * small_squared_norm
    squared_gradient = difference / (large_batch - small_batch)
    noise = (small_squared_norm - large_squared_norm) / (1 / small_batch - 1 / large_batch)
    return squared_gradient, noise


def _gather(training: Callable[[], Iterable[Batch]], places: Tensor) -> tuple[Tensor, Tensor]:
    """The images and targets at `places`, [P], in the order in which `training` yields them."""
    images: list[Tensor] = [torch.empty(0)] * len(places)
    targets: list[Tensor] = [torch.empty(0)] * len(places)
    start = 0
    for batch in training():
        end = start + len(batch.targets)
        for position in ((places >= start) & (places < end)).nonzero().flatten().tolist():
            place = int(places[position]) - start
            images[position], targets[position] = batch.images[place], batch.targets[place]
        start = end
    return torch.stack(images), torch.stack(targets)


PROBE = Probe("noise_scale", ("noise_scale",), When.FIRST_AND_LAST, noise_scale)
