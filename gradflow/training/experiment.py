"""Trains each network with each seed on the same images: one experiment, a run folder for each."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import torch

from gradflow import __version__
from gradflow.data import ImageData, Split, load, split, steps_per_epoch
from gradflow.data.torchvision_sets import PREFIX
from gradflow.errors import ConfigurationError, TrainingError
from gradflow.models import build
from gradflow.runs.format.files import RUN_FILE
from gradflow.runs.reading.locating import RUNS_FOLDER
from gradflow.runs.reading.run import open_run
from gradflow.runs.writing.lock import FolderLock
from gradflow.runs.writing.run import ExperimentWriter, claim_folder
from gradflow.training.configuration import Configuration
from gradflow.training.epoch_probes import requested_probes
from gradflow.training.job import Job, reading_of, sinks_of
from gradflow.training.loop import EpochSummary, Progress, train
from gradflow.training.resumption import read_summaries, require_same_images
from gradflow.training.side_by_side import Failure, run_side_by_side
from gradflow.training.state import discard_state
from gradflow.training.steps.computation import computation_of


@dataclass(frozen=True)
class TrainedNetwork:
    """The epochs of one network trained with one seed."""

    network: str
    seed: int
    epochs: list[EpochSummary]

    @property
    def best(self) -> EpochSummary:
        """The epoch with the best validation accuracy, whose weights are in best.pt."""
        return max(self.epochs, key=lambda summary: summary.val_accuracy)


class SomeFailedError(TrainingError):
    """Of several trainings side by side, some failed.

    Fields:
        trained: those that did not.
        traces: the tracebacks of errors that are none of gradflow's own.
    """

    def __init__(
        self, message: str, trained: Sequence[TrainedNetwork] = (), traces: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.trained = tuple(trained)
        self.traces = tuple(traces)


@dataclass(frozen=True)
class Plan:
    """Everything known before the first step: options, data, splits, device, folder."""

    configuration: Configuration
    folder: Path
    device: torch.device
    data: ImageData
    splits: dict[int, Split]
    resumed: bool = False

    def jobs(self) -> list[Job]:
        """One job for each seed and network; the networks of one seed follow each other."""
        options = self.configuration
        return [
            Job(
                options,
                network,
                seed,
                self.data,
                self.splits[seed],
                self.device,
                self.folder / run_name(network, seed),
            )
            for seed in options.seeds
            for network in options.models
        ]


def run_name(network: str, seed: int) -> str:
    """The name of a run's folder within the experiment's."""
    return f"{network}-seed{seed}"


def make_plan(options: Configuration, *, resumed: bool = False) -> Plan:
    """Load and split the images and check every option, before anything is written.

    `resumed` says that the folder already holds the experiment, which is to be resumed.

    Raises `ConfigurationError` or `DataError` if the experiment cannot be run.
    """
    device = choose_device(options.device)
    computation_of(options, device)
    requested_probes(options)
    for network in options.models:
        build(network, classes=2, norm=options.norm, shortcut=options.shortcut, seed=0)
    folder = options.out or _new_folder(options.data)
    for network in options.models:
        for seed in options.seeds:
            sinks_of(options, folder / run_name(network, seed), new=not resumed)
    data = load(options.data, image_size=options.image_size, reading=reading_of(options))
    splits = {
        seed: split(data, validation_fraction=options.validation_fraction, seed=seed)
        for seed in options.seeds
    }
    for part in splits.values():
        steps_per_epoch(len(part.training), options.batch_size)
    return Plan(options, folder, device, data, splits, resumed)


def run(plan: Plan, progress_of: Callable[[Job], Progress]) -> list[TrainedNetwork]:
    """Train every job of `plan`; `progress_of` makes the progress display of a job.

    If the plan resumes an experiment, its complete runs are left as they are.

    Raises `RunError` if the folder already holds an experiment or run, if another process trains
    in it, or if a run cannot be resumed; `SomeFailedError` if trainings side by side failed.
    """
    jobs = plan.jobs()
    if not plan.resumed:
        claim_folder(plan.folder)
    with FolderLock(plan.folder):
        if not plan.resumed:
            ExperimentWriter(
                plan.folder,
                {
                    "gradflow": __version__,
                    "configuration": plan.configuration.as_json(),
                    "runs": [job.folder.name for job in jobs],
                },
            )
        processes = min(plan.configuration.processes, len(jobs))
        if processes == 1:
            return [_trained(job, progress_of(job), resumed=plan.resumed) for job in jobs]
        work = partial(_trained, resumed=plan.resumed)
        return _all_trained(jobs, run_side_by_side(jobs, work, progress_of, processes), plan.folder)


def _all_trained(
    jobs: Sequence[Job], results: Sequence[TrainedNetwork | Failure], folder: Path
) -> list[TrainedNetwork]:
    """The results, if all jobs have one. Raises `SomeFailedError` if not."""
    failed = [
        (job.folder.name, result)
        for job, result in zip(jobs, results, strict=True)
        if isinstance(result, Failure)
    ]
    trained = [result for result in results if isinstance(result, TrainedNetwork)]
    if not failed:
        return trained
    reasons = "; ".join(f"{name}: {failure.reason}" for name, failure in failed)
    raise SomeFailedError(
        f"{len(failed)} of {len(jobs)} trainings failed ({reasons}); those that ended are in "
        f"{folder}; correct the cause and go on with --resume",
        trained,
        [failure.trace for _, failure in failed if failure.trace],
    )


def _trained(job: Job, progress: Progress, *, resumed: bool) -> TrainedNetwork:
    if not resumed:
        return TrainedNetwork(job.network, job.seed, train(job, progress))
    started = (job.folder / RUN_FILE).exists()
    if started:
        recorded = open_run(job.folder)
        require_same_images(job, recorded)
        if recorded.description.get("status") == "complete":
            discard_state(job.folder)  # if the process died after the last row, before doing this
            return TrainedNetwork(job.network, job.seed, read_summaries(recorded))
    now = train(job, progress, resume=started)
    # The run on disk holds the epochs before these, without a gap.
    before = read_summaries(open_run(job.folder))[: job.configuration.epochs - len(now)]
    return TrainedNetwork(job.network, job.seed, [*before, *now])


def choose_device(name: str) -> torch.device:
    """The device called `name`; `auto` is CUDA if available, else MPS, else the CPU.

    Raises `ConfigurationError` if the name is unknown or this machine has no such device.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, present in available.items() if present)
    if name not in available:
        raise ConfigurationError(
            f"there is no device called {name!r}: choose from auto, {', '.join(available)}"
        )
    if not available[name]:
        raise ConfigurationError(
            f"--device {name} was given, but PyTorch finds no such device on this machine: "
            "leave --device out, or give --device cpu"
        )
    return torch.device(name)


def _new_folder(data: str) -> Path:
    if data.startswith(PREFIX):
        data = data.partition("@")[0]  # without the folder in which the data set is
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(data).stem).strip("-.") or "images"
    return RUNS_FOLDER / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
