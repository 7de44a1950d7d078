"""`python -m gradflow.probe`: runs probes on finished runs, with their saved weights and images."""

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
from gradflow.training.epoch_probes import make_subject, needs_previous_state, requested_probes
from gradflow.training.evaluation import Evaluation, accuracy_changed, evaluate
from gradflow.training.experiment import choose_device
from gradflow.training.job import Job, reading_of
from gradflow.training.steps.computation import exact


@dataclass(frozen=True)
class Options:
    """Run probes on finished runs, with the weights they kept, and add the results to the runs.

    If a run kept the weights of every epoch (`train_and_trace --checkpoints every`), each probe
    runs at the same epochs as in training; otherwise it runs on the weights of the best epoch.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    """The folder of an experiment or of a single run."""

    probes: tuple[str, ...] = ("all",)
    """Names of probes, or all. Results that a run already has for an epoch stay as they are."""

    data: str | None = None
    """The place of the images, if they have moved since the training."""

    device: str = "auto"
    """Device to run on: auto, cpu, cuda or mps."""


@dataclass(frozen=True)
class SavedEpoch:
    """An epoch of a finished run whose weights were saved, with its first and last step."""

    epoch: int
    weights: Path
    first_step: int
    last_step: int
    is_last: bool


def main(arguments: Sequence[str] | None = None, prog: str = "python -m gradflow.probe") -> int:
    """Run the command; return its exit status: 0, 1 for an error, 130 for an interrupt."""
    console = Console(highlight=False)

    def work() -> None:
        options = tyro.cli(Options, prog=prog, args=arguments)
        with reporting_out_of_memory(lambda: ": what was measured so far is kept"):
            for run in open_experiment(options.folder).runs:
                probe_run(run, options, lambda line: console.print(printable(line), markup=False))

    return run_command(work, lambda: "interrupted: what was measured so far is kept")


def probe_run(run: Run, options: Options, print_line: Callable[[str], None]) -> None:
    """Run the requested probes at every epoch of `run` whose weights were saved.

    Raises `RunError` if the run was not made by `train_and_trace`, is not finished or kept no
    weights, and `DataError` if its images cannot be loaded.
    """
    job = rebuild_job(run, options)
    requested = requested_probes(replace(job.configuration, probes=options.probes))
    print_line(run.name)
    model = job.build_model()
    previous = _PreviousEpoch()
    with exact(), RunWriter.reopen(run.folder) as writer:
        for saved_epoch in saved_epochs(run):
            missing = _missing(run, saved_epoch, requested)
            compares_epochs = needs_previous_state(missing) or (
                needs_previous_state(requested) and not saved_epoch.is_last
            )
            subject = make_subject(
                job,
                model,
                saved_epoch.epoch,
                is_last_epoch=saved_epoch.is_last,
                accuracy_changed=False,
                previous_state=None,
            )
            if compares_epochs or any(is_due(probe, subject) for probe in missing):
                checkpoints.restore(saved_epoch.weights, model)
            if compares_epochs:
                subject, previous = _with_previous_epoch(subject, previous, evaluate(model, job))
            _probe_epoch(run, writer, saved_epoch, missing, subject, print_line)


@dataclass(frozen=True)
class _PreviousEpoch:
    """The evaluation and the state dict of the last saved epoch, which the next one needs."""

    epoch: int = 0
    validation: Evaluation | None = None
    state: dict[str, Tensor] | None = None


def _with_previous_epoch(
    subject: Subject, previous: _PreviousEpoch, validation: Evaluation
) -> tuple[Subject, _PreviousEpoch]:
    """Add the comparison with the previous epoch to `subject`; also return what the next needs."""
    state = {name: value.detach().clone() for name, value in subject.model.state_dict().items()}
    after = _PreviousEpoch(subject.epoch, validation, state)
    if previous.validation is None or subject.epoch != previous.epoch + 1:
        return subject, after
    changed = accuracy_changed(previous.validation, validation)
    return replace(subject, accuracy_changed=changed, previous_state=previous.state), after


def _missing(run: Run, saved_epoch: SavedEpoch, requested: tuple[Probe, ...]) -> tuple[Probe, ...]:
    """The requested probes that have no rows for this epoch yet."""
    return tuple(
        probe
        for probe in requested
        if not any((run.table(table)["epoch"] == saved_epoch.epoch).any() for table in probe.tables)
    )


def _probe_epoch(
    run: Run,
    writer: RunWriter,
    saved_epoch: SavedEpoch,
    missing: tuple[Probe, ...],
    subject: Subject,
    print_line: Callable[[str], None],
) -> None:
    seconds: dict[str, Any] = {}

    def write_table(name: str, columns: Mapping[str, Any]) -> None:
        rows = len(next(iter(columns.values())))
        with_epoch = {"epoch": [saved_epoch.epoch] * rows, **columns}
        if name == "probe_costs":
            seconds.update(zip(columns["probe"], columns["seconds"], strict=True))
            with_epoch = _with_recorded_costs(run, saved_epoch, with_epoch)
        writer.append(name, with_epoch, saved_epoch.first_step, saved_epoch.last_step)

    run_probes(missing, subject, write_table)
    ran = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    print_line(f"  epoch {saved_epoch.epoch}: {ran or 'nothing to do'}")


def _with_recorded_costs(
    run: Run, saved_epoch: SavedEpoch, columns: dict[str, Any]
) -> dict[str, Any]:
    """The costs already recorded in the file of this epoch, followed by those in `columns`.

    If that file was merged into a longer one, the new rows go into a file of their own, without
    the recorded costs.
    """
    part = run.folder / "probe_costs" / part_name(saved_epoch.first_step, saved_epoch.last_step)
    if not part.exists():
        return columns
    known = run.table("probe_costs")
    known = known[(known["epoch"] == saved_epoch.epoch) & ~known["probe"].isin(columns["probe"])]
    held = known[list(columns)].astype(object).where(known[list(columns)].notna(), None)
    return {name: [*held[name], *columns[name]] for name in columns}


def saved_epochs(run: Run) -> Iterator[SavedEpoch]:
    """The epochs of `run` whose weights were saved, in order."""
    kept = checkpoints.available(run.folder)
    ends = dict(zip(run.epochs["epoch"].tolist(), run.epochs["step"].tolist(), strict=True))
    for epoch, weights in sorted(kept.items()):
        if epoch not in ends:
            raise RunError(f"{run.folder} holds weights of epoch {epoch}, but did not finish it")
        first = int(ends[epoch - 1]) + 1 if epoch - 1 in ends else 0
        # If the run kept the weights of one epoch only, this counts as its last epoch.
        yield SavedEpoch(epoch, weights, first, int(ends[epoch]), epoch == max(kept))


def rebuild_job(run: Run, options: Options) -> Job:
    """The job that made `run`, with its images loaded and split again in the same way.

    Raises `RunError` if `run` was not made by `train_and_trace`, is not finished, or was made with
    other images.
    """
    if run.seed is None or "network" not in run.description or not run.configuration:
        raise RunError(
            f"{run.folder} was not made by train_and_trace, so its network cannot be built again: "
            "use the probes of gradflow.probes on your own model"
        )
    if run.description.get("status") == "running":
        raise RunError(f"the run in {run.folder} is not finished: wait until it is")
    configuration = Configuration.from_json(run.configuration)
    data = load(
        options.data or configuration.data,
        image_size=configuration.image_size,
        reading=reading_of(configuration),
    )
    parts = split(data, validation_fraction=configuration.validation_fraction, seed=run.seed)
    device: torch.device = choose_device(options.device)
    job = Job(configuration, run.network, run.seed, data, parts, device, run.folder)
    _require_same_images(run, job, data)
    return job


def _require_same_images(run: Run, job: Job, data: ImageData) -> None:
    recorded = run.images.sort_values("image")
    subset = job.image_columns()["subset"]
    same = list(recorded["fingerprint"]) == list(data.fingerprints)
    if not same or list(recorded["subset"]) != subset:
        raise RunError(
            f"these images are not those that {run.folder} was trained and validated on: "
            "give the place of the right images with --data"
        )


if __name__ == "__main__":
    sys.exit(main())
