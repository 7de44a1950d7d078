"""Trains networks x seeds on the same images, one run folder each, in one experiment folder."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch

from gradflow import __version__
from gradflow.data import ImageData, Split, load, split, steps_per_epoch
from gradflow.errors import ConfigurationError
from gradflow.models import build
from gradflow.runs.format.files import RUN_FILE
from gradflow.runs.reading.locating import RUNS_FOLDER
from gradflow.runs.reading.run import open_run
from gradflow.runs.writing.lock import FolderLock
from gradflow.runs.writing.run import ExperimentWriter, claim_folder
from gradflow.training.configuration import Configuration
from gradflow.training.epoch_probes import wanted_probes
from gradflow.training.job import Job
from gradflow.training.loop import EpochSummary, Progress, train
from gradflow.training.resumption import require_same_images, summaries_of
from gradflow.training.state import discard_state


@dataclass(frozen=True)
class Trained:
    """One network trained with one seed."""

    network: str
    seed: int
    epochs: list[EpochSummary]

    @property
    def best(self) -> EpochSummary:
        """The epoch whose checkpoint was kept."""
        return max(self.epochs, key=lambda summary: summary.val_accuracy)


@dataclass(frozen=True)
class Plan:
    """Everything that is settled before the first step: data, splits, device, folders."""

    configuration: Configuration
    folder: Path
    device: torch.device
    data: ImageData
    splits: dict[int, Split]
    resumed: bool = False

    def jobs(self) -> list[Job]:
        """One job a seed and network, networks of a seed next to each other."""
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

    `resumed` says that the experiment is in its folder already, and is gone on with.

    Raises `ConfigurationError` or `DataError` where the experiment cannot be run.
    """
    device = choose_device(options.device)
    wanted_probes(options)
    for network in options.models:
        build(network, classes=2, norm=options.norm, shortcut=options.shortcut, seed=0)
    data = load(options.data, image_size=options.image_size)
    splits = {
        seed: split(data, validation_fraction=options.validation_fraction, seed=seed)
        for seed in options.seeds
    }
    for part in splits.values():
        steps_per_epoch(len(part.training), options.batch_size)
    folder = options.out or _new_folder(options.data)
    return Plan(options, folder, device, data, splits, resumed)


def run(plan: Plan, progress_of: Callable[[Job], Progress]) -> list[Trained]:
    """Train every job of `plan`; `progress_of` gives each job its own progress.

    Of a plan to resume, runs that are complete are left as they are.

    Raises `RunError` where the folder holds an experiment or run already, or another process
    trains in it; of a plan to resume, where a run cannot be gone on with.
    """
    jobs = plan.jobs()
    if not plan.resumed:
        claim_folder(plan.folder)
    with FolderLock(plan.folder):
        if plan.resumed:
            return [_resume(job, progress_of) for job in jobs]
        ExperimentWriter(
            plan.folder,
            {
                "gradflow": __version__,
                "configuration": plan.configuration.as_json(),
                "runs": [job.folder.name for job in jobs],
            },
        )
        return [Trained(job.network, job.seed, train(job, progress_of(job))) for job in jobs]


def _resume(job: Job, progress_of: Callable[[Job], Progress]) -> Trained:
    started = (job.folder / RUN_FILE).exists()
    if started:
        recorded = open_run(job.folder)
        require_same_images(job, recorded)
        if recorded.description.get("status") == "complete":
            discard_state(job.folder)  # where the end came between the last row and this
            return Trained(job.network, job.seed, summaries_of(recorded))
    now = train(job, progress_of(job), resume=started)
    # Those before come from the run: what it holds now is what was trained, without a gap.
    before = summaries_of(open_run(job.folder))[: job.configuration.epochs - len(now)]
    return Trained(job.network, job.seed, [*before, *now])


def choose_device(name: str) -> torch.device:
    """The device called `name`; `auto` is CUDA where there is one, else MPS, else the CPU.

    Raises `ConfigurationError` where the device is absent, or there is none of that name.
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
            f"--device {name} was asked for, but this machine has none that PyTorch can use: "
            "leave --device out, or give --device cpu"
        )
    return torch.device(name)


def _new_folder(data: str) -> Path:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(data).stem).strip("-.") or "images"
    return RUNS_FOLDER / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
