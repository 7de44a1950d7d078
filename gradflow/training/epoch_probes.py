"""Chooses the probes to run at the end of an epoch, and makes the `Subject` that they measure."""

from collections.abc import Mapping

from torch import Tensor, nn

from gradflow.probes.probe import Probe, Subject, When
from gradflow.probes.registry import PROBE_NAMES, find_probes
from gradflow.training.configuration import Configuration
from gradflow.training.job import Job


def requested_probes(options: Configuration) -> tuple[Probe, ...]:
    """The probes that `--probes` names, in the order in which they run.

    Raises `ConfigurationError` for an unknown name.
    """
    names = options.probes
    if names == ("all",):
        names = PROBE_NAMES
    elif names == ("none",):
        names = ()
    return find_probes(names)


def needs_previous_state(probes: tuple[Probe, ...]) -> bool:
    """Whether one of `probes` needs the weights of the epoch before."""
    return any(probe.when is When.ACCURACY_JUMP for probe in probes)


def make_subject(
    job: Job,
    model: nn.Module,
    epoch: int,
    *,
    is_last_epoch: bool,
    accuracy_changed: bool,
    previous_state: Mapping[str, Tensor] | None,
) -> Subject:
    """The subject of the probes at the end of `epoch`; see `Subject` for the arguments."""
    return Subject(
        model=model,
        epoch=epoch,
        is_last_epoch=is_last_epoch,
        accuracy_changed=accuracy_changed,
        previous_state=previous_state,
        batch=job.probe_batch(),
        training_batches=job.unaugmented_training_batches,
        validation_batches=job.validation_batches,
        seed=job.seed,
    )
