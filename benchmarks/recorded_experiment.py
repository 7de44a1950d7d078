"""Writes an experiment of any size with made-up values, through gradflow's writers.

As in real runs, values drift smoothly over depth and epochs and scatter from step to step; but they
show nothing about training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gradflow.runs.format.layer_tables import ACTIVATIONS, GRADIENTS, JUNCTIONS
from gradflow.runs.format.quantity import Table
from gradflow.runs.format.update_tables import PARAMETERS
from gradflow.runs.writing.run import ExperimentWriter, RunWriter

CREATED = "2025-05-03T14:05:09+00:00"
COSINES = ("gradient_cosine", "skip_branch_cosine")
FRACTIONS = ("zero_fraction", "skip_share", "cancellation")


@dataclass(frozen=True)
class Size:
    """How many layers a network has, and how long a run is."""

    layers: int = 200
    epochs: int = 200
    steps: int = 3
    scalars: bool = True


def record(folder: Path, networks: Sequence[str], seeds: Sequence[int], size: Size) -> None:
    """Write an experiment of `networks` by `seeds` to `folder`; `resnet` in a name adds junctions.

    Raises `RunError` if `folder` already holds an experiment.
    """
    names = [f"run{place}-seed{seed}" for place in range(len(networks)) for seed in seeds]
    ExperimentWriter(folder, {"created": CREATED, "runs": names})
    pairs = [(network, seed) for network in networks for seed in seeds]
    for name, (network, seed) in zip(names, pairs, strict=True):
        _record_run(folder / name, network, seed, size)


def layer_names(layers: int) -> list[str]:
    """The names of the layers, in order of execution."""
    return [f"stage{place // 10}.conv{place % 10}" for place in range(layers)]


def _record_run(folder: Path, network: str, seed: int, size: Size) -> None:
    description = {"created": CREATED, "network": network, "seed": seed, "device": "cpu"}
    writer = RunWriter(folder, description)
    generator = np.random.default_rng([seed, len(network), *network.encode()])
    layers = layer_names(size.layers)
    writer.write_layers(
        {
            "layer": layers,
            "type": ["Conv2d"] * size.layers,
            "depth": range(1, size.layers + 1),
            "stage": [place // 10 for place in range(size.layers)],
            "role": ["convolution"] * size.layers,
            "shape": ["64x16x16"] * size.layers,
            "parameters": [36864] * size.layers,
        }
    )
    tables = [(ACTIVATIONS, layers), (GRADIENTS, layers)]
    tables.append((PARAMETERS, [f"{name}.weight" for name in layers]))
    if "resnet" in network:
        tables.append((JUNCTIONS, layers[1::2]))
    last = size.epochs * size.steps - 1
    for table, names in tables:
        writer.append(table.name, _columns(table, names, size, generator), 0, last)
    if size.scalars:
        writer.append("epochs", _epochs(size, generator), 0, last)
    writer.close("complete")


def _columns(
    table: Table, names: Sequence[str], size: Size, generator: np.random.Generator
) -> dict[str, Any]:
    shape = (size.epochs, size.steps, len(names))
    steps = np.arange(size.epochs * size.steps)
    key = table.keys[2].name
    columns: dict[str, Any] = {
        "epoch": np.repeat(steps // size.steps + 1, len(names)),
        "step": np.repeat(steps, len(names)),
        key: list(names) * len(steps),
        "batch_size": np.full(len(steps) * len(names), 24),
        "skip_type": ["identity"] * (len(steps) * len(names)),
        "optimizer": ["Adam"] * (len(steps) * len(names)),
        "group": np.zeros(len(steps) * len(names), dtype=int),
    }
    for quantity in table.quantities:
        if quantity.dtype == "float64":
            columns[quantity.name] = _values(quantity.name, shape, generator).ravel()
        elif quantity.dtype == "int64":
            columns[quantity.name] = np.zeros(len(steps) * len(names), dtype=int)
    return {quantity.name: columns[quantity.name] for quantity in table.columns}


def _values(name: str, shape: tuple[int, int, int], generator: np.random.Generator) -> Any:
    epochs, _, rows = shape
    trend = np.cumsum(generator.normal(size=(epochs, 1, 1)), axis=0) / np.sqrt(epochs)
    slope = np.linspace(-3, 3, rows)[None, None, :] * generator.normal()
    logs = trend + slope + 0.3 * generator.normal(size=shape)
    if name in COSINES or name == "mean":
        return np.tanh(logs)
    return 1 / (1 + np.exp(-logs)) if name in FRACTIONS else np.exp(logs)


def _epochs(size: Size, generator: np.random.Generator) -> dict[str, Any]:
    epochs = np.arange(1, size.epochs + 1)
    accuracy = 0.9 - 0.7 * np.exp(-epochs / 20) + 0.02 * generator.normal(size=size.epochs)
    return {
        "epoch": epochs,
        "step": epochs * size.steps - 1,
        "train_loss": 1.6 * np.exp(-epochs / 20) + 0.1,
        "train_accuracy": accuracy,
        "val_loss": 1.6 * np.exp(-epochs / 20) + 0.2,
        "val_accuracy": accuracy - 0.05,
    }
