"""Synthetic runs with planted numbers, written as a real run is and read back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradflow.runs.format.schema import TABLES
from gradflow.runs.reading.run import Experiment, open_experiment
from gradflow.runs.writing.run import ExperimentWriter, RunWriter

STATISTICS = [quantity.name for quantity in TABLES["activations"].quantities]
CLASSES = ["bakso", "gado_gado", "nasi_goreng", "rendang", "soto_ayam"]


@dataclass
class Plan:
    """A run to be written: two stages of convolution, normalization, ReLU; blocks of two."""

    network: str = "plain8"
    seed: int | None = 2025
    convolutions: int = 8
    epochs: int = 3
    steps: int = 10  # per epoch
    factor: float = 1.0  # of the gradient norm, per convolution toward the input
    noise: float = 0.0  # of the logarithm of the norm
    images: int = 60
    right: np.ndarray | None = None  # [epochs, images]: running statistics
    recalibrated: np.ndarray | None = None  # [epochs, images]: re-estimated ones
    skip_share: float | None = None
    dead_fraction: float = 0.0
    configuration: dict[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()  # tables not written
    classes: list[str] = field(default_factory=lambda: list(CLASSES))
    first_image: int = 0  # index of the first of the images
    copies: int = 0  # of the images, that many at the end are copies of image 0
    probed: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # rows of probes' tables

    @property
    def residual(self) -> bool:
        return self.skip_share is not None


class Builder:
    """Writes planned runs below `folder`; `plan` and `right_of` make what goes into them."""

    plan = Plan

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def experiment(self, *plans: Plan) -> Experiment:
        names = [f"{plan.network}-seed{plan.seed}" for plan in plans]
        ExperimentWriter(self.folder, {"runs": names})
        for name, plan in zip(names, plans, strict=True):
            write(self.folder / name, plan)
        return open_experiment(self.folder)

    def right_of(self, accuracies: list[float], images: int = 60, seed: int = 0) -> np.ndarray:
        """Booleans [epochs, images] of these accuracies; the same images are easiest each time."""
        order = np.random.default_rng(seed).permutation(images)
        counts = [round(accuracy * images) for accuracy in accuracies]
        return np.stack([np.isin(np.arange(images), order[:count]) for count in counts])


@pytest.fixture(scope="module")
def build_for_all(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Builder]:
    """Makes a builder in a new folder, for an experiment that a whole file of tests looks at."""
    return lambda: Builder(tmp_path_factory.mktemp("shared") / "experiment")


@pytest.fixture
def build(tmp_path: Path) -> Builder:
    return Builder(tmp_path / "experiment")


@pytest.fixture
def histogram_row() -> Callable[[int, int, str, np.ndarray], dict[str, Any]]:
    """Makes a row of a table of histograms from the values themselves, all below infinity."""

    def row(epoch: int, step: int, layer: str, values: np.ndarray) -> dict[str, Any]:
        exponents = np.floor(np.log2(np.abs(values[values != 0]))).astype(int)
        lowest = int(exponents.min()) if exponents.size else 0
        return {
            "epoch": epoch,
            "step": step,
            "layer": layer,
            "zeros": int((values == 0).sum()),
            "underflow": 0,
            "infinite": 0,
            "nan": 0,
            "lowest_exponent": lowest,
            "counts": np.bincount(exponents - lowest).tolist() if exponents.size else [],
        }

    return row


def write(folder: Path, plan: Plan) -> None:
    description = {
        "network": plan.network,
        "seed": plan.seed,
        "configuration": plan.configuration,
        "classes": plan.classes,
    }
    writer = RunWriter(folder, description)
    layers = layer_rows(plan)
    if "layers" not in plan.without:
        writer.write_layers(columns(layers))
    generator = np.random.default_rng(0 if plan.seed is None else plan.seed)
    tables = {
        "gradients": gradient_rows(plan, layers, generator),
        "activations": activation_rows(plan, layers),
        "parameters": parameter_rows(plan, layers, generator),
        "junctions": junction_rows(plan, layers, generator) if plan.residual else [],
        "predictions": prediction_rows(plan, plan.right),
        "recalibration": prediction_rows(plan, plan.recalibrated),
        "images": image_rows(plan),
        "epochs": epoch_rows(plan),
        **plan.probed,
    }
    for name, rows in tables.items():
        if rows and name not in plan.without:
            writer.append(name, columns(rows), 0, plan.epochs * plan.steps - 1)
    writer.close("complete")


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def layer_rows(plan: Plan) -> list[dict[str, Any]]:
    rows = []
    half = plan.convolutions // 2
    for depth in range(1, plan.convolutions + 1):
        stage = 0 if depth <= half else 1
        shape = "8x4x4" if stage == 0 else "16x2x2"
        kinds = [("conv", "Conv2d", "convolution"), ("bn", "BatchNorm2d", "normalization")]
        kinds += [("relu", "ReLU", "activation")]
        if depth % 2 == 0:
            kinds.append(("block", "Block", "block"))
        for name, kind, role in kinds:
            label = f"block{depth // 2}" if name == "block" else f"{name}{depth}"
            rows.append(
                {
                    "layer": label,
                    "type": kind,
                    "depth": depth,
                    "stage": stage,
                    "role": role,
                    "shape": shape,
                    "parameters": 72 if role == "convolution" else 0,
                }
            )
    return rows


def steps(plan: Plan) -> list[tuple[int, int]]:
    return [
        (epoch, (epoch - 1) * plan.steps + step)
        for epoch in range(1, plan.epochs + 1)
        for step in range(plan.steps)
    ]


def statistics(**known: float) -> dict[str, float]:
    row: dict[str, float] = dict.fromkeys(STATISTICS, 0.5)
    return row | {"nonfinite": 0, "dead_channels": 0, **known}


def gradient_rows(plan: Plan, layers: list[Any], generator: Any) -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch,
            "step": step,
            "layer": layer["layer"],
            "batch_size": 24,
            **statistics(
                norm=plan.factor ** (plan.convolutions - layer["depth"])
                * float(np.exp(plan.noise * generator.standard_normal()))
            ),
        }
        for epoch, step in steps(plan)
        for layer in layers
    ]


def activation_rows(plan: Plan, layers: list[Any]) -> list[dict[str, Any]]:
    rows = []
    for epoch, step in steps(plan):
        for layer in layers:
            channels = int(layer["shape"].split("x")[0])
            dead = round(plan.dead_fraction * channels) if layer["role"] == "activation" else 0
            row = statistics(
                dead_channels=dead, channel_variance=1.0 + layer["depth"], channel_squared_mean=0.2
            )
            key = {"epoch": epoch, "step": step, "layer": layer["layer"], "batch_size": 24}
            rows.append(key | row)
    return rows


def parameter_rows(plan: Plan, layers: list[Any], generator: Any) -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch,
            "step": step,
            "parameter": f"{layer['layer']}.weight",
            "weight_norm": 10.0,
            "gradient_norm": 0.1 * float(np.exp(0.1 * generator.standard_normal())),
            "backward_gradient_norm": None,
            "clipping_factor": None,
            "update_norm": 0.01,
            "update_to_weight": 0.001 * float(np.exp(0.1 * generator.standard_normal())),
            "gradient_cosine": 0.1,
            "optimizer": "Adam",
            "group": 0,
            "learning_rate": 0.001,
        }
        for epoch, step in steps(plan)
        for layer in layers
        if layer["role"] == "convolution"
    ]


def junction_rows(plan: Plan, layers: list[Any], generator: Any) -> list[dict[str, Any]]:
    share = float(plan.skip_share or 0.0)
    blocks = [layer["layer"] for layer in layers if layer["role"] == "block"]
    return [
        {
            "epoch": epoch,
            "step": step,
            "layer": block,
            "skip_type": "projection" if index == len(blocks) // 2 else "identity",
            "gradient_norm": 1.0,
            "skip_gradient_norm": share,
            "branch_gradient_norm": 1 - share,
            "skip_branch_cosine": 1.0,
            "skip_share": share + plan.noise * generator.standard_normal(),
            "cancellation": 0.0,
            "input_gradient_norm": 1.0,
            "residual_error": 0.0,
            "skip_variance": index + 1.0,
            "branch_variance": 1.0,
        }
        for epoch, step in steps(plan)
        for index, block in enumerate(blocks)
    ]


def prediction_rows(plan: Plan, right: np.ndarray | None) -> list[dict[str, Any]]:
    if right is None:
        return []
    kinds = len(plan.classes) or 5
    rows = []
    for epoch, row in enumerate(right, start=1):
        for image, correct in enumerate(row):
            target = image % kinds
            prediction = target if correct else (target + 1) % kinds
            label = {"target": target, "prediction": prediction, "probability": 0.5}
            rows.append({"epoch": epoch, "image": plan.first_image + image, **label})
    return rows


def image_rows(plan: Plan) -> list[dict[str, Any]]:
    first_copy = plan.images - plan.copies
    return [
        {
            "image": plan.first_image + image,
            "name": f"{image}.png",
            "label": image % (len(plan.classes) or 5),
            "subset": "validation",
            "fingerprint": str(image if image < first_copy else 0),
        }
        for image in range(plan.images)
    ]


def epoch_rows(plan: Plan) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for epoch in range(1, plan.epochs + 1):
        row: dict[str, Any] = {"epoch": epoch, "step": epoch * plan.steps - 1}
        row |= {"train_loss": 1.6 / epoch, "train_accuracy": 1 - 0.7 / epoch}
        if plan.right is not None:
            row |= {"val_loss": 1.7 / epoch, "val_accuracy": float(plan.right[epoch - 1].mean())}
        rows.append(row)
    return rows
