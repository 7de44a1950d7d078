"""The probe `attribution`: conductances of skip and branch, and pictures of important pixels.

It attributes the logit of the predicted class, with a black image as baseline.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradflow.data import Batch
from gradflow.data.batches import normalize, pixels
from gradflow.probes.attribution.conductance import conductances, relative_error
from gradflow.probes.attribution.pictures import grad_cam, integrated_gradients, layer_for_grad_cam
from gradflow.probes.network.blocks import find_blocks
from gradflow.probes.network.predictions import Predictions, predictions_from
from gradflow.probes.probe import NotMeasurableError, Probe, Subject, Tables, When

CONDUCTANCE_IMAGES = 16
CONDUCTANCE_STEPS = 16
PICTURE_CLASSES = 6
PICTURE_STEPS = 64
FIRST_OF_CLASS = "first of its class"
MOST_CONFIDENT_WRONG = "most confident wrong one"
MOST_CONFIDENT_RIGHT = "most confident right one"
INTEGRATED_GRADIENTS = "integrated gradients"
GRAD_CAM = "Grad-CAM"


def measure(subject: Subject) -> Tables:
    """The tables `conductance` (of residual networks) and `attribution_pictures`.

    Conductances are measured on 16 validation images, taken from the classes in turn. Pictures
    show the first validation image of each of the first six classes, which are the same for all
    networks of a seed, and the network's most confident wrong and right predictions among the rest.

    Raises `NotMeasurableError` if the network has no blocks.
    """
    model = subject.model
    if not find_blocks(model):
        raise NotMeasurableError(
            "the network has no blocks of a known kind, so there are no skips, branches or maps"
        )
    model.requires_grad_(False)
    predictions = _predict(model, subject.validation_batches())
    order = interleave_classes(predictions.target)
    positions = order[:CONDUCTANCE_IMAGES]
    tables = {"attribution_pictures": _pictures(subject, predictions, choose_pictures(predictions))}
    if any(block.residual for block in find_blocks(model)):
        tables["conductance"] = _conductance(subject, predictions, positions)
    return tables


def interleave_classes(targets: Tensor) -> list[int]:
    """Positions in `targets` [V]: the first image of every class, then the second of each, ..."""
    seen: dict[int, int] = {}
    keys = []
    for position, target in enumerate(targets.tolist()):
        seen[target] = seen.get(target, 0) + 1
        keys.append((seen[target], target, position))
    return [position for _, _, position in sorted(keys)]


def choose_pictures(predictions: Predictions) -> list[tuple[int, str]]:
    """The positions of the images to show, each once, with the rule that chose it."""
    classes = len(predictions.target.unique())
    first = interleave_classes(predictions.target)[: min(classes, PICTURE_CLASSES)]
    chosen = [(position, FIRST_OF_CLASS) for position in first]
    right = predictions.prediction == predictions.target
    for rule, fits in ((MOST_CONFIDENT_WRONG, ~right), (MOST_CONFIDENT_RIGHT, right)):
        others = fits.clone()
        others[[position for position, _ in chosen]] = False
        if others.any():
            confidence = torch.where(others, predictions.probability, -1.0)
            chosen.append((int(confidence.argmax()), rule))
    return chosen


@torch.no_grad()
def _predict(model: nn.Module, batches: Iterable[Batch]) -> Predictions:
    return predictions_from([(batch, model(batch.images)) for batch in batches])


def _images_at(subject: Subject, positions: Sequence[int]) -> Tensor:
    """The validation images at `positions`, [N, 3, H, W], in that order."""
    found: dict[int, Tensor] = {}
    start = 0
    for batch in subject.validation_batches():
        for position in positions:
            if start <= position < start + len(batch.images):
                found[position] = batch.images[position - start]
        start += len(batch.images)
    return torch.stack([found[position] for position in positions])


def _black_images(images: Tensor) -> Tensor:
    return normalize(torch.zeros_like(images))


def _conductance(
    subject: Subject, predictions: Predictions, positions: Sequence[int]
) -> dict[str, list[Any]]:
    images = _images_at(subject, positions)
    found = conductances(
        subject.model,
        images,
        _black_images(images),
        predictions.prediction[positions],
        CONDUCTANCE_STEPS,
    )
    rows: dict[str, list[Any]] = {
        name: []
        for name in ("layer", "image", "skip", "branch", "difference", "completeness_error")
    }
    for one in found:
        rows["layer"] += [one.block] * len(positions)
        rows["image"] += predictions.image[positions].tolist()
        for name in ("skip", "branch", "difference"):
            rows[name] += getattr(one, name).tolist()
        rows["completeness_error"] += relative_error(one.skip + one.branch, one.difference)
    return rows


def _pictures(
    subject: Subject, predictions: Predictions, chosen: list[tuple[int, str]]
) -> dict[str, list[Any]]:
    model, positions = subject.model, [position for position, _ in chosen]
    images = _images_at(subject, positions)
    baseline, targets = _black_images(images), predictions.prediction[positions]
    gradients = integrated_gradients(model, images, baseline, targets, PICTURE_STEPS)
    with torch.no_grad():
        difference = (model(images) - model(baseline)).gather(1, targets[:, None])[:, 0]
    errors: Iterable[float | None] = relative_error(gradients.sum((1, 2)), difference)
    seen = layer_for_grad_cam(model, images[0])
    maps = grad_cam(model, images, targets, seen.module)
    rows: dict[str, list[Any]] = {"method": [], "layer": [], "values": [], "completeness_error": []}
    for method, layer, values, completeness in (
        (INTEGRATED_GRADIENTS, None, gradients, errors),
        (GRAD_CAM, seen.name, maps, [None] * len(positions)),
    ):
        rows["method"] += [method] * len(positions)
        rows["layer"] += [layer] * len(positions)
        rows["values"] += values.flatten(1).cpu().tolist()
        rows["completeness_error"] += completeness
    height, width = images.shape[-2:]
    both = 2 * positions
    return {
        "image": predictions.image[both].tolist(),
        "rule": 2 * [rule for _, rule in chosen],
        "target": predictions.target[both].tolist(),
        "prediction": predictions.prediction[both].tolist(),
        "probability": predictions.probability[both].tolist(),
        "height": [height] * len(both),
        "width": [width] * len(both),
        "pixels": 2 * [image.cpu().numpy().tobytes() for image in pixels(images)],
        **rows,
    }


PROBE = Probe(
    name="attribution",
    tables=("conductance", "attribution_pictures"),
    when=When.LAST,
    measure=measure,
)
