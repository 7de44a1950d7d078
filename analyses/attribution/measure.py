"""Reads the attributions of a run's last epoch, and compares those of two networks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analyses.reading.probe_tables import last_epoch
from analyses.statistics import Array
from analyses.statistics.basics import ranks
from gradflow.runs.reading.run import Run

TABLE = "attribution_pictures"
INTEGRATED_GRADIENTS = "integrated gradients"
GRAD_CAM = "Grad-CAM"
FIRST_OF_CLASS = "first of its class"
MIN_PIXELS = 10  # a correlation over fewer pixels says next to nothing


@dataclass(frozen=True, eq=False)
class AttributedImage:
    """One image with the attributions of one network's prediction.

    Fields:
        network: name of the network.
        image: number of the image.
        rule: why this image was chosen.
        target, prediction: names of the true and the predicted class.
        right: whether they are the same.
        probability: that of the predicted class.
        pixels: uint8 [H, W, 3].
        maps: [H, W] in logits, by method.
        layers: the layer whose attribution each method shows; None for the input.
        completeness_error: of the integrated gradients; NaN if they were not recorded.
    """

    network: str
    image: int
    rule: str
    target: str
    prediction: str
    right: bool
    probability: float
    pixels: NDArray[np.uint8]
    maps: dict[str, Array]
    layers: dict[str, str | None]
    completeness_error: float


def attributed_images(run: Run) -> list[AttributedImage]:
    """The images of the last measured epoch, in the order in which they were chosen."""
    rows = last_epoch(run.table(TABLE))
    return [
        _attributed_image(run, group.to_dict("records"))
        for _, group in rows.groupby("image", sort=False)
    ]


def _attributed_image(run: Run, rows: list[dict[str, object]]) -> AttributedImage:
    first, classes = rows[0], run.classes
    height, width = int(str(first["height"])), int(str(first["width"]))
    target, prediction = int(str(first["target"])), int(str(first["prediction"]))
    flat = np.frombuffer(_bytes(first["pixels"]), dtype=np.uint8)
    errors = [
        float(str(row["completeness_error"]))
        for row in rows
        if row["method"] == INTEGRATED_GRADIENTS and row["completeness_error"] is not None
    ]
    return AttributedImage(
        network=run.network,
        image=int(str(first["image"])),
        rule=str(first["rule"]),
        target=classes[target] if target < len(classes) else str(target),
        prediction=classes[prediction] if prediction < len(classes) else str(prediction),
        right=target == prediction,
        probability=float(str(first["probability"])),
        pixels=flat.reshape(3, height, width).transpose(1, 2, 0),
        maps={
            str(row["method"]): np.asarray(row["values"], dtype=float).reshape(height, width)
            for row in rows
        },
        layers={
            str(row["method"]): layer if isinstance(layer := row["layer"], str) else None
            for row in rows
        },
        completeness_error=errors[0] if errors else float("nan"),
    )


def _bytes(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value


def rank_correlation(first: AttributedImage, second: AttributedImage) -> float:
    """Spearman's rho between two networks' integrated gradients of one image, over its pixels.

    Signs are kept, because magnitudes grow with the brightness of a pixel in any network. Black
    pixels are left out, because both networks give them zero. NaN for fewer than ten such pixels,
    if one map is constant, or if the two networks predict different classes.
    """
    if first.prediction != second.prediction:
        return float("nan")
    lit = first.pixels.any(axis=2)
    one, other = (each.maps[INTEGRATED_GRADIENTS][lit] for each in (first, second))
    if lit.sum() < MIN_PIXELS or not (np.ptp(one) > 0 and np.ptp(other) > 0):
        return float("nan")
    return ranks.rank_correlation(one, other)
