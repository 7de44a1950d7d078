"""`python -m gradflow.probe`: runs probes on finished runs, from their weights and their data."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from torch import Tensor

from gradflow.command_line.exit_codes import run_command
from gradflow.command_line.out_of_memory import reporting_out_of_memory
from gradflow.data import ImageData, load, split
from gradflow.errors import RunError, printable
from gradflow.probes.execution import run_probes
from gradflow.probes.probe import Probe, Subject, is_due
from gradflow.runs.format.parts import part_name
from gradflow.runs.reading.run import Run, open_experiment
from gradflow.runs.writing.run import RunWriter
from gradflow.training import checkpoints
from gradflow.training.configuration import Configuration
from gradflow.training.epoch_probes import needs_previous, subject_of, wanted_probes
from gradflow.training.evaluation import Evaluation, evaluate, moved_beyond_noise
from gradflow.training.experiment import choose_device
from gradflow.training.job import Job


@dataclass(frozen=True)
class Options:
    """Run probes on finished runs, from the weights that they kept, and add what they measure.

    Where the weights of every epoch were kept (`train_and_trace --checkpoints every`), each probe
    runs at the epochs it would have run at in training; otherwise on the best epoch's weights.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    """An experiment or a single run."""

    probes: tuple[str, ...] = ("all",)
    """Probes by name, or all. What a run has already for an epoch is left as it is."""

    data: str | None = None
    """Where the images are now, if they have moved since."""

    device: str = "auto"
    """Device to run on: auto, cpu, cuda or mps."""


@dataclass(frozen=True)
class Moment:
    """The end of an epoch of a finished run: its weights, and the steps the epoch took."""

    epoch: int
    weights: Path
    first_step: int
    last_step: int
    last: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 for an error, 130 for an interrupt."""
    console = Console(highlight=False)

    def work() -> None:
        options = tyro.cli(Options, prog="python -m gradflow.probe", args=arguments)
        with reporting_out_of_memory(lambda: ": what was measured so far is kept"):
            for run in open_experiment(options.folder).runs:
                probe_run(run, options, lambda line: console.print(printable(line), markup=False))

    return run_command(work, lambda: "interrupted: what was measured so far is kept")


def probe_run(run: Run, options: Options, say: Callable[[str], None]) -> None:
    """Run the wanted probes at every epoch of `run` whose weights were kept.

    Raises `RunError` where the run was not made by `train_and_trace`, is not finished or kept no
    weights, and `DataError` where its images cannot be had.
    """
    job = job_of(run, options)
    wanted = wanted_probes(replace(job.configuration, probes=options.probes))
    say(run.name)
    model = job.build_model()
    before = _Before()
    with RunWriter.reopen(run.folder) as writer:
        for moment in moments_of(run):
            missing = _missing(run, moment, wanted)
            jumps = needs_previous(missing) or (needs_previous(wanted) and not moment.last)
            subject = subject_of(
                job, model, moment.epoch, last=moment.last, moved=False, previous=None
            )
            if jumps or any(is_due(probe, subject) for probe in missing):
                checkpoints.restore(moment.weights, model)
            if jumps:
                subject, before = _with_the_epoch_before(subject, before, evaluate(model, job))
            _probe_moment(run, writer, moment, missing, subject, say)


@dataclass(frozen=True)
class _Before:
    """What is remembered of an epoch when the next one is looked at."""

    epoch: int = 0
    validation: Evaluation | None = None
    state: dict[str, Tensor] | None = None


def _with_the_epoch_before(
    subject: Subject, before: _Before, validation: Evaluation
) -> tuple[Subject, _Before]:
    """`subject` with what it needs of the epoch before, and what the next one will need."""
    state = {name: value.detach().clone() for name, value in subject.model.state_dict().items()}
    after = _Before(subject.epoch, validation, state)
    if before.validation is None or subject.epoch != before.epoch + 1:
        return subject, after
    moved = moved_beyond_noise(before.validation, validation)
    return replace(subject, moved=moved, previous=before.state), after


def _missing(run: Run, moment: Moment, wanted: tuple[Probe, ...]) -> tuple[Probe, ...]:
    """Those of the probes `wanted` that wrote nothing at this moment."""
    return tuple(
        probe
        for probe in wanted
        if not any((run.table(table)["epoch"] == moment.epoch).any() for table in probe.tables)
    )


def _probe_moment(
    run: Run,
    writer: RunWriter,
    moment: Moment,
    missing: tuple[Probe, ...],
    subject: Subject,
    say: Callable[[str], None],
) -> None:
    seconds: dict[str, Any] = {}

    def write_table(name: str, columns: Mapping[str, Any]) -> None:
        rows = len(next(iter(columns.values())))
        with_epoch = {"epoch": [moment.epoch] * rows, **columns}
        if name == "probe_costs":
            seconds.update(zip(columns["probe"], columns["seconds"], strict=True))
            with_epoch = _with_known(run, moment, with_epoch)
        writer.append(name, with_epoch, moment.first_step, moment.last_step)

    run_probes(missing, subject, write_table)
    ran = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    say(f"  epoch {moment.epoch}: {ran or 'nothing to do'}")


def _with_known(run: Run, moment: Moment, columns: dict[str, Any]) -> dict[str, Any]:
    """The costs that the run's part of this epoch holds already, then those in `columns`.

    Where that part was merged into a longer one, no part is replaced, and none need be said again.
    """
    part = run.folder / "probe_costs" / part_name(moment.first_step, moment.last_step)
    if not part.exists():
        return columns
    known = run.table("probe_costs")
    known = known[(known["epoch"] == moment.epoch) & ~known["probe"].isin(columns["probe"])]
    held = known[list(columns)].astype(object).where(known[list(columns)].notna(), None)
    return {name: [*held[name], *columns[name]] for name in columns}


def moments_of(run: Run) -> Iterator[Moment]:
    """The ends of the epochs of `run` whose weights were kept, in order."""
    kept = checkpoints.available(run.folder)
    ends = dict(zip(run.epochs["epoch"].tolist(), run.epochs["step"].tolist(), strict=True))
    for epoch, weights in sorted(kept.items()):
        if epoch not in ends:
            raise RunError(f"{run.folder} holds weights of epoch {epoch}, which it did not finish")
        first = int(ends[epoch - 1]) + 1 if epoch - 1 in ends else 0
        # Where there are weights of one epoch only, it is the last that can be looked at.
        yield Moment(epoch, weights, first, int(ends[epoch]), epoch == max(kept))


def job_of(run: Run, options: Options) -> Job:
    """The job that made `run`, its images loaded and split again, as they were.

    Raises `RunError` where `run` was not made by `train_and_trace` or is not finished, or where the
    images are not those it was made with.
    """
    if run.seed is None or "network" not in run.description or not run.configuration:
        raise RunError(
            f"{run.folder} was not made by train_and_trace: its network cannot be built again, "
            "use the probes of gradflow.probes on your own model"
        )
    if run.description.get("status") == "running":
        raise RunError(f"the run in {run.folder} is not finished: wait until it is")
    configuration = Configuration.from_json(run.configuration)
    data = load(options.data or configuration.data, image_size=configuration.image_size)
    parts = split(data, validation_fraction=configuration.validation_fraction, seed=run.seed)
    device: torch.device = choose_device(options.device)
    job = Job(configuration, run.network, run.seed, data, parts, device, run.folder)
    _require_same_images(run, job, data)
    return job


def _require_same_images(run: Run, job: Job, data: ImageData) -> None:
    recorded = run.images.sort_values("image")
    subset = job.membership()["subset"]
    same = list(recorded["fingerprint"]) == list(data.fingerprints)
    if not same or list(recorded["subset"]) != subset:
        raise RunError(
            f"the images found are not those that {run.folder} was trained and validated on: "
            "name the right ones with --data"
        )


if __name__ == "__main__":
    sys.exit(main())
