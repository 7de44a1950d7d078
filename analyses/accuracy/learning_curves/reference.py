"""The published measurement that this toolkit was first written to explain, with its options.

Two 34-layer networks on 1,225 photographs of five Indonesian dishes, one run each. Their training
and validation images overlap (the split was drawn twice from one running random generator), so
their validation accuracies are optimistic by an unknown amount.
"""

from typing import Any

import pandas as pd

from gradflow.runs.reading.run import Run

CLASSES = ("bakso", "gado_gado", "nasi_goreng", "rendang", "soto_ayam")
REFERENCE_OPTIONS: dict[str, Any] = {
    "batch_size": 24,
    "lr": 0.0005,
    "weight_decay": 0.0005,
    "epochs": 10,
    "image_size": 300,
}
OVERLAP_CAVEAT = (
    "The reference's training and validation images overlap, so its validation accuracies are "
    "optimistic by an unknown amount; a split made here is disjoint."
)

_PLAIN34 = {
    "train_loss": (1.63, 1.60, 1.49, 1.44, 1.38, 1.31, 1.30, 1.25, 1.27, 1.21),
    "train_accuracy": (20.4, 23.7, 30.0, 34.0, 36.6, 40.6, 42.1, 45.0, 42.8, 45.8),
    "val_loss": (1.62, 1.62, 1.41, 1.75, 2.84, 1.45, 1.13, 1.91, 1.44, 1.23),
    "val_accuracy": (22.86, 15.9, 37.55, 22.0, 32.2, 28.2, 54.29, 34.3, 42.4, 42.4),
}
_RESNET34 = {
    "train_loss": (1.54, 1.31, 1.24, 1.17, 1.10, 1.07, 1.08, 0.978, 0.956, 0.935),
    "train_accuracy": (32.4, 42.9, 45.6, 48.8, 51.5, 58.2, 54.0, 61.5, 62.7, 63.0),
    "val_loss": (2.20, 1.87, 1.46, 1.14, 1.22, 1.12, 1.26, 0.915, 1.16, 1.11),
    "val_accuracy": (38.37, 30.2, 32.2, 44.90, 45.71, 56.33, 51.8, 60.00, 60.0, 54.3),
}


def reference_curves(network: str) -> pd.DataFrame | None:
    """The reference's curves of `network`, accuracies as fractions; None for other networks."""
    curves = {"plain34": _PLAIN34, "resnet34": _RESNET34}.get(network)
    if curves is None:
        return None
    columns = {
        name: [value / 100 if name.endswith("accuracy") else value for value in values]
        for name, values in curves.items()
    }
    return pd.DataFrame({"epoch": range(1, 11), **columns})


def has_reference_options(run: Run) -> bool:
    """Was `run` trained on the reference's classes with the reference's options?"""
    configuration = run.configuration
    return tuple(sorted(run.classes)) == CLASSES and all(
        configuration.get(name) == value for name, value in REFERENCE_OPTIONS.items()
    )
