"""Defines a probe, and its input: a copy of a network at the end of an epoch, and images.

A probe runs the network again, or changes one thing in it, and measures the effect. It works on a
copy of its own, so the training goes on as if no probe had run.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from torch import Tensor, nn

from gradflow.data import Batch

Tables = Mapping[str, Mapping[str, Any]]


class When(StrEnum):
    """The epochs at whose end a requested probe runs."""

    EVERY_EPOCH = "at the end of every epoch"
    FIRST_AND_LAST = "at the end of the first and of the last epoch"
    LAST = "at the end of the last epoch"
    ACCURACY_JUMP = (
        "if the validation accuracy changed by more than sampling noise since the last epoch"
    )


@dataclass(frozen=True, eq=False)
class Subject:
    """The input of a probe: a network at the end of an epoch, and images.

    Fields:
        model: a copy for this probe alone, in evaluation mode, without gradients or hooks; the
            probe may change it in any way.
        epoch: counted from 1.
        is_last_epoch: whether this is the last epoch of the run.
        accuracy_changed: whether the validation accuracy changed by more than sampling noise since
            the epoch before (exact McNemar test at 5 %).
        previous_state: the state dict at the end of the epoch before; None at the first.
        batch: at most 24 training images without augmentation, the same at every epoch and for
            every network of one seed.
        training_batches: yields all training images without augmentation, in batches of the size
            used in training, in the same shuffled order each time.
        validation_batches: yields all validation images, in order.
        seed: the seed of the run. A probe draws random numbers from its own generator, seeded
            with this seed and the epoch, never from the global generator.
    """

    model: nn.Module
    epoch: int
    is_last_epoch: bool
    accuracy_changed: bool
    previous_state: Mapping[str, Tensor] | None
    batch: Batch
    training_batches: Callable[[], Iterable[Batch]]
    validation_batches: Callable[[], Iterable[Batch]]
    seed: int


@dataclass(frozen=True)
class Probe:
    """A measurement and the epochs at which it runs.

    Fields:
        name: as given to `--probes`.
        tables: the tables of the schema that it fills.
        when: the epochs at whose end it runs.
        measure: takes a subject and returns the columns of each table, without the column
            `epoch`; a table without rows is left out. Raises `NotMeasurableError` if the network
            lacks something that the probe needs.
    """

    name: str
    tables: tuple[str, ...]
    when: When
    measure: Callable[[Subject], Tables]


class NotMeasurableError(Exception):
    """Raised by a probe if the network lacks something that the probe needs; says what."""


def is_due(probe: Probe, subject: Subject) -> bool:
    """Whether `probe` runs at the end of the subject's epoch."""
    return {
        When.EVERY_EPOCH: True,
        When.FIRST_AND_LAST: subject.is_last_epoch or subject.epoch == 1,
        When.LAST: subject.is_last_epoch,
        When.ACCURACY_JUMP: subject.accuracy_changed and subject.previous_state is not None,
    }[probe.when]
