"""A training job: one network, one seed, and its training and validation images."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradflow.data import (
    Batch,
    ImageData,
    Reading,
    Split,
    evaluation_batches,
    find_duplicates,
    steps_per_epoch,
    training_batches,
)
from gradflow.data.on_device.placement import Placement, placed
from gradflow.hooks.selection.schedules import Budget, DescribedSchedule, default_schedule, every
from gradflow.models import build
from gradflow.sinks.by_name import sinks_of_run
from gradflow.sinks.sink import Sink
from gradflow.training.configuration import Configuration
from gradflow.training.steps.computation import Computation, computation_of

LARGEST_PROBE_BATCH = 24


def reading_of(options: Configuration) -> Reading:
    """How the options say that a folder or table of images is to be read."""
    return Reading(options.layout, options.column_names, options.on_bad_data == "skip")


def sinks_of(options: Configuration, folder: Path, *, new: bool = False) -> list[Sink]:
    """Where else the numbers of the run in `folder` are written; see `sinks_of_run`."""
    return sinks_of_run(
        options.sinks,
        folder,
        quantities=options.sink_quantities,
        every=options.sink_every,
        new=new,
    )


@dataclass(frozen=True)
class Job:
    """One network to train with one seed, on images that are already loaded and split.

    `placement` says where the images are, once they are `placed`.
    """

    configuration: Configuration
    network: str
    seed: int
    data: ImageData
    split: Split
    device: torch.device
    folder: Path
    placement: Placement | None = None

    @property
    def computation(self) -> Computation:
        """How the network is computed on the device.

        Raises `ConfigurationError` for a precision in which the device cannot train.
        """
        return computation_of(self.configuration, self.device)

    def placed(self) -> "Job":
        """This job with its images on the device, if they fit there."""
        data, placement = placed(self.data, self.device)
        return replace(self, data=data, placement=placement)

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches that `training_batches` yields."""
        return steps_per_epoch(len(self.split.training), self.configuration.batch_size)

    def schedule(self) -> DescribedSchedule | Budget:
        """The schedule of the steps that are recorded."""
        interval = self.configuration.trace_every
        if interval is not None:
            return every(interval)
        return default_schedule(
            self.device.type, every_steps=2, steps_per_epoch=self.steps_per_epoch
        )

    def build_model(self) -> nn.Module:
        """The network with its initial weights, on the device."""
        options = self.configuration
        model = build(
            self.network,
            classes=len(self.data.classes),
            norm=options.norm,
            shortcut=options.shortcut,
            init=options.init,
            skip_scale=options.skip_scale,
            seed=self.seed,
        )
        return self.computation.place(model)

    def training_batches(self, epoch: int) -> Iterator[Batch]:
        """The training images of epoch `epoch`: shuffled, and augmented if the options say so."""
        return self._training_batches(epoch, augment=self.configuration.augment)

    def unaugmented_training_batches(self) -> Iterator[Batch]:
        """The training images without augmentation, in batches, in the same order each time.

        No epoch of the training uses this order.
        """
        return self._training_batches(0, augment=False)

    def validation_batches(self) -> Iterator[Batch]:
        """The validation images in order, in larger (faster) batches: no gradients need memory."""
        size = min(4 * self.configuration.batch_size, len(self.split.validation))
        return evaluation_batches(
            self.data, self.split.validation, batch_size=size, device=self.device
        )

    def probe_batch(self) -> Batch:
        """The first unaugmented training images, at most 24; alike for all networks of a seed."""
        first = next(self.unaugmented_training_batches())
        parts = (first.images, first.targets, first.indices)
        return Batch(*(part[:LARGEST_PROBE_BATCH] for part in parts))

    def sinks(self) -> list[Sink]:
        """Where else the numbers of this run are written."""
        return sinks_of(self.configuration, self.folder)

    def image_columns(self) -> dict[str, Any]:
        """The columns of the table `images`."""
        subset = ["training"] * len(self.data.labels)
        for index in self.split.validation.tolist():
            subset[index] = "validation"
        return {
            "image": list(range(len(subset))),
            "name": list(self.data.names),
            "label": self.data.labels.numpy(),
            "subset": subset,
            "fingerprint": list(self.data.fingerprints),
        }

    def description(self) -> dict[str, Any]:
        """The entries of `run.json` about the network, the images and the options."""
        options = self.configuration
        duplicates = find_duplicates(self.data)
        return {
            "network": self.network,
            "seed": self.seed,
            "device": _device_name(self.device),
            "computation": self.computation.description(),
            "classes": list(self.data.classes),
            "images": {
                "all": len(self.data),
                "distinct": duplicates.distinct,
                "under_several_labels": [list(names) for names in duplicates.conflicts],
                "training": len(self.split.training),
                "validation": len(self.split.validation),
                "shape": "x".join(map(str, self.data.images.shape[1:])),
                "per_class": self.data.class_counts,
                "own_split": self.data.official_validation is not None,
                "notes": list(self.data.notes),
                **({"placement": asdict(self.placement)} if self.placement else {}),
            },
            "steps_per_epoch": self.steps_per_epoch,
            "configuration": options.as_json() | {"optimizer": "Adam"},
        }

    def _training_batches(self, epoch: int, *, augment: bool) -> Iterator[Batch]:
        return training_batches(
            self.data,
            self.split.training,
            batch_size=self.configuration.batch_size,
            seed=self.seed,
            epoch=epoch,
            augment=augment,
            device=self.device,
        )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
