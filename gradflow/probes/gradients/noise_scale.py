"""From which batch size on do larger batches stop helping? The simple noise scale tr(S) / |G|^2.

McCandlish et al. 2018, An empirical model of large-batch training: the squared norms of gradients
of two batch sizes give unbiased estimates of |G|^2, the squared norm of the true gradient, and of
tr(S), the summed variances of one image's gradient. Each is to be averaged over the draws before
one is divided by the other.
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
    """The columns of the table `noise_scale`, a row a draw.

    Each draw takes `large_batch` training images, with replacement, so the estimates are unbiased
    for all training images together (G their mean gradient, S the covariance, 1/n). The small
    batches are the parts of the large one, as the batches of single workers are in the paper:
    |g_s|^2 is the mean over all of them, taken from the gradients of single images. Batch-norm
    statistics are frozen at their running values: those of a batch would tie its images together.

    Args:
        subject: its `training` is gone through twice.
        draws: independent of one another.
        small_batch: images in a small batch.
        large_batch: images in a large batch, a multiple of `small_batch`.

    Raises `NotMeasurableError` where there are no training images, and where the gradients of
    single images cannot be told apart; see `gradient_products`.
    """
    if large_batch % small_batch or large_batch <= small_batch:
        raise ValueError(
            f"a large batch of {large_batch} images is not made of small ones of {small_batch}"
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
    """The mean of |g_s|^2 over the parts of `small_batch` images, and |g_b|^2 over all of them.

    Args:
        products: [B, B], <g_i, g_j> of the gradients of single images, whose means g_s and g_b are.
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

    Since the expectation of |g_B|^2 is |G|^2 + tr(S) / B. Either may come out negative.
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
