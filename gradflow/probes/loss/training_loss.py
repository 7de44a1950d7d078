"""The training loss, its gradient and its curvature on a few fixed training images.

Batch norms normalize each batch by its own statistics, as in training. Running statistics are not
used, so the loss depends only on the weights and the images. All other modules, e.g. dropout, are
in evaluation mode.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow.data import Batch
from gradflow.probes.probe import Subject
from gradflow.recalibration.estimation import batch_norms

Weights = dict[str, Tensor]  # by parameter name


def first_batches(subject: Subject, count: int) -> list[Batch]:
    """The first `count` unaugmented training batches: the same images at every epoch."""
    return list(islice(subject.training_batches(), count))


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Within the context, batch norms use the statistics of the batch, and update their buffers."""
    model.eval()
    try:
        for module in batch_norms(model).values():
            module.train()
        yield
    finally:
        model.eval()


def copy_weights(model: nn.Module) -> Weights:
    """A copy of every parameter."""
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


@torch.no_grad()
def load_weights(model: nn.Module, weights: Weights) -> None:
    """Set every parameter of `model`. Its buffers do not change."""
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])


@torch.no_grad()
def mean_loss(model: nn.Module, batches: Sequence[Batch]) -> float:
    """Mean cross-entropy over all images of `batches`, in nats."""
    return float(torch.stack([_loss_share(model, batch, batches) for batch in batches]).sum())


def gradient_of_loss(model: nn.Module, batches: Sequence[Batch]) -> Weights:
    """The gradient of the mean loss with respect to every parameter."""
    parameters = dict(model.named_parameters())
    total = {name: torch.zeros_like(weight) for name, weight in parameters.items()}
    for batch in batches:
        share = _loss_share(model, batch, batches)
        gradients = torch.autograd.grad(share, list(parameters.values()), materialize_grads=True)
        for name, part in zip(parameters, gradients, strict=True):
            total[name] += part
    return total


def curvature_along_gradient(model: nn.Module, batch: Batch) -> tuple[float, float]:
    """|g| and <g, H g> / <g, g> of the mean loss on `batch`, g its gradient, H its Hessian.

    H g is the gradient of <g, v> with v = g held fixed (Pearlmutter 1994, Fast exact multiplication
    by the Hessian). It is exact: no difference quotient is used. The curvature is nan if g is zero.
    """
    parameters = list(model.parameters())
    loss = _loss_share(model, batch, [batch])
    gradient = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    held = [part.detach() for part in gradient]
    product = sum((part * fixed).sum() for part, fixed in zip(gradient, held, strict=True))
    assert isinstance(product, Tensor)
    curved = torch.autograd.grad(product, parameters, materialize_grads=True)
    square = inner_product(held, held)
    return float(square.sqrt()), float(inner_product(held, curved) / square)


def inner_product(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """The inner product over all parameters, float64 [] on the CPU."""
    products = [(a * b).sum().cpu().double() for a, b in zip(first, second, strict=True)]
    return torch.stack(products).sum()


def count_images(batches: Sequence[Batch]) -> int:
    """The number of images in all `batches`."""
    return sum(len(batch.targets) for batch in batches)


def _loss_share(model: nn.Module, batch: Batch, batches: Sequence[Batch]) -> Tensor:
    """The contribution of `batch` to the mean loss over all images of `batches`."""
    summed = F.cross_entropy(model(batch.images), batch.targets, reduction="sum")
    return summed / count_images(batches)
