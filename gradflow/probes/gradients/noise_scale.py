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


def noise_scale(subject: Subject, draws: int = 3, small: int = 1, large: int = 16) -> Tables:
    """The columns of the table `noise_scale`, a row a draw.

    Each draw takes `large` training images, with replacement, so that the estimates are unbiased
    for all training images together (G their mean gradient, S the covariance, 1/n). The small
    batches are the parts of the large one, as the batches of single workers are in the paper:
    |g_s|^2 is the mean over all of them, taken from the gradients of single images. Batch-norm
    statistics are frozen at their running values: those of a batch would tie its images together.

    Args:
        subject: its `training` is gone through twice.
        draws: independent of one another.
        small: images in a small batch.
        large: images in a large batch, a multiple of `small`.

    Raises `NotMeasurableError` where there are no training images, and where the gradients of
    single images cannot be told apart; see `gradient_products`.
    """
    if large % small or large <= small:
        raise ValueError(f"a large batch of {large} images is not made of small ones of {small}")
    count = sum(len(batch.targets) for batch in subject.training())
    if not count:
        raise NotMeasurableError("there are no training images")
    generator = torch.Generator().manual_seed(
        derived_seed(subject.seed, subject.epoch, "noise_scale")
    )
    places = torch.randint(count, (draws * large,), generator=generator)
    images, targets = _gather(subject.training, places)
    model = subject.model.eval()
    columns: dict[str, list[Any]] = {
        "draw": list(range(draws)),
        "small_batch": [small] * draws,
        "large_batch": [large] * draws,
        "small_squared_norm": [],
        "large_squared_norm": [],
        "squared_gradient": [],
        "noise": [],
    }
    for x, y in zip(images.split(large), targets.split(large), strict=True):
        products = torch.stack(list(gradient_products(model, x, y).values())).sum(0)
        of_small, of_large = squared_norms(products, small)
        squared_gradient, noise = estimates(of_small, of_large, small, large)
        columns["small_squared_norm"].append(of_small)
        columns["large_squared_norm"].append(of_large)
        columns["squared_gradient"].append(squared_gradient)
        columns["noise"].append(noise)
    return {"noise_scale": columns}


def squared_norms(products: Tensor, small: int) -> tuple[float, float]:
    """The mean of |g_s|^2 over the parts of `small` images, and |g_b|^2 over all of them.

    Args:
        products: [B, B], <g_i, g_j> of the gradients of single images, whose means g_s and g_b are.
        small: a divisor of B.
    """
    large = len(products)
    parts = products.unfold(0, small, small).unfold(1, small, small).sum((2, 3))
    return float(parts.diagonal().mean()) / small**2, float(products.sum()) / large**2


def estimates(of_small: float, of_large: float, small: int, large: int) -> tuple[float, float]:
    """|G|^2 and tr(S) from squared gradient norms at two batch sizes.

    Since the expectation of |g_B|^2 is |G|^2 + tr(S) / B. Either may come out negative.
    """
    squared_gradient = (large * of_large - small * of_small) / (large - small)
    noise = (of_small - of_large) / (1 / small - 1 / large)
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
