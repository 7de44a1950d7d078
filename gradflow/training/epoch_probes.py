"""Probes at the end of an epoch: which are wanted, and what they are shown."""

from collections.abc import Mapping

from torch import Tensor, nn

from gradflow.probes.probe import Probe, Subject, When
from gradflow.probes.registry import PROBE_NAMES, find_probes
from gradflow.training.configuration import Configuration
from gradflow.training.job import Job


def wanted_probes(options: Configuration) -> tuple[Probe, ...]:
    """The probes that `--probes` asks for, in the order in which they run.

    Raises `ConfigurationError` for a name that no probe has.
    """
    names = options.probes
    if names == ("all",):
        names = PROBE_NAMES
    elif names == ("none",):
        names = ()
    return find_probes(names)


def needs_previous(probes: tuple[Probe, ...]) -> bool:
    """Whether one of `probes` looks at the weights of the epoch before."""
    return any(probe.when is When.JUMP for probe in probes)


def subject_of(
    job: Job,
    model: nn.Module,
    epoch: int,
    *,
    last: bool,
    moved: bool,
    previous: Mapping[str, Tensor] | None,
) -> Subject:
    """What the probes are shown at the end of `epoch`; see `Subject` for the arguments."""
    return Subject(
        model=model,
        epoch=epoch,
        last=last,
        moved=moved,
        previous=previous,
        batch=job.probe_batch(),
        training=job.plain_training_batches,
        validation=job.validation_batches,
        seed=job.seed,
    )
