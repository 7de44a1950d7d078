"""The probe `loss_slice`: the training loss along lines through the weights, after accuracy jumps.

Three lines: from the weights of the epoch before to the present ones, against the gradient, and
along a random direction whose filters have the same norms as those of the network (Li et al. 2018,
Visualizing the loss landscape of neural nets).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gradflow.probes.loss.training_loss import (
    Weights,
    batch_statistics,
    copy_weights,
    count_images,
    first_batches,
    gradient_of_loss,
    inner_product,
    load_weights,
    mean_loss,
)
from gradflow.probes.probe import NotMeasurableError, Probe, Subject, Tables, When
from gradflow.seeding import derived_seed

BATCHES = 1  # the same batch as in the probe sharpness, so its slope and curvature fit this slice
BETWEEN_EPOCHS, GRADIENT, RANDOM = "between epochs", "gradient", "random"
BETWEEN_POSITIONS = (-0.25, 0.0, 0.25, 0.5, 0.75, 1.25)  # and 1, the present weights
GRADIENT_MULTIPLES = (-0.5, 0.5, 1.0)  # of L / |g|, the distance at which a linear loss would be 0
RANDOM_POSITIONS = (-1.0, -0.5, 0.5, 1.0)


def measure(subject: Subject) -> Tables:
    """The table `loss_slice`, over the first training batch.

    Raises `NotMeasurableError` if there are no weights of an epoch before.
    """
    if subject.previous_state is None:
        raise NotMeasurableError("there are no weights of an epoch before")
    batches = first_batches(subject, BATCHES)
    model, present = subject.model, copy_weights(subject.model)
    with batch_statistics(model):
        here = mean_loss(model, batches)
        rows = [(BETWEEN_EPOCHS, 1.0, here)]
        for position in BETWEEN_POSITIONS:
            _set_between(model, subject.previous_state, present, position)
            rows.append((BETWEEN_EPOCHS, position, mean_loss(model, batches)))
        load_weights(model, present)
        gradient = gradient_of_loss(model, batches)
        norm = float(inner_product(list(gradient.values()), list(gradient.values())).sqrt())
        random = filter_normalized_direction(
            present, derived_seed(subject.seed, subject.epoch, "loss_slice")
        )
        lines = [(RANDOM, random, [(at, at) for at in RANDOM_POSITIONS])]
        if norm > 0:
            distances = [multiple * here / norm for multiple in GRADIENT_MULTIPLES]
            lines.append((GRADIENT, gradient, [(at, -at / norm) for at in distances]))
        for name, direction, places in lines:
            rows.append((name, 0.0, here))
            for position, factor in places:
                _set_along(model, present, direction, factor)
                rows.append((name, position, mean_loss(model, batches)))
    directions, positions, losses = zip(*sorted(rows), strict=True)
    return {
        "loss_slice": {
            "direction": directions,
            "position": positions,
            "loss": losses,
            "images": [count_images(batches)] * len(rows),
        }
    }


def filter_normalized_direction(weights: Weights, seed: int) -> Weights:
    """A normal random direction; each of its filters has the norm of the same filter in `weights`.

    d_ij <- d_ij |w_ij| / |d_ij|, for filter j of layer i (Li et al. 2018). In a linear layer a
    filter is a row. Biases and batch-norm parameters have no filters: their direction is zero.
    """
    generator = torch.Generator().manual_seed(seed)
    return {name: _normalized(weight, generator) for name, weight in weights.items()}


def _normalized(weight: Tensor, generator: torch.Generator) -> Tensor:
    if weight.dim() < 2:
        return torch.zeros_like(weight)
    drawn = torch.randn(weight.shape, generator=generator, dtype=weight.dtype).to(weight.device)
    filters = drawn.flatten(1)
    scale = weight.flatten(1).norm(dim=1) / filters.norm(dim=1)
    direction: Tensor = (filters * scale[:, None]).view_as(weight)
    return direction


@torch.no_grad()
def _set_between(
    model: nn.Module, previous: Mapping[str, Tensor], present: Weights, position: float
) -> None:
    for name, parameter in model.named_parameters():
        # torch.lerp gives both ends exactly; a weighted sum would not.
        torch.lerp(previous[name].to(parameter), present[name], position, out=parameter)


@torch.no_grad()
def _set_along(model: nn.Module, start: Weights, direction: Weights, factor: float) -> None:
    for name, parameter in model.named_parameters():
        torch.add(start[name], direction[name], alpha=factor, out=parameter)


PROBE = Probe(name="loss_slice", tables=("loss_slice",), when=When.ACCURACY_JUMP, measure=measure)
