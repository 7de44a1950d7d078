"""`python -m gradflow.train_and_trace`: trains networks and records their gradients."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import tyro
from rich.console import Console

from gradflow.configuration import Configuration
from gradflow.console import ConsoleProgress, progress_bar, quoted, show_plan, show_results
from gradflow.data import steps_per_epoch
from gradflow.errors import GradflowError
from gradflow.experiment import make_plan, run
from gradflow.interrupts import Terminated, end_in_good_order
from gradflow.job import Job
from gradflow.resuming import recorded_configuration

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130


@dataclass(frozen=True)
class Options(Configuration):
    """Train networks on the same images and record their gradients as they train.

    Without options: plain34 and resnet34 on scikit-learn's embedded digits, in the setting of the
    experiment that this project starts from.
    """

    resume: Path | None = None
    """An experiment's folder: go on with it where it was interrupted, with the options it began
    with. Only --device and --data may be given beside it."""

    @property
    def configuration(self) -> Configuration:
        """What is trained; the recorded options where an experiment is resumed.

        Raises what `recorded_configuration` raises.
        """
        values = {field.name: getattr(self, field.name) for field in fields(Configuration)}
        given = Configuration(**values)
        return given if self.resume is None else recorded_configuration(self.resume, given)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 for an error, 130 for an interrupt."""
    console, errors = Console(), Console(stderr=True, soft_wrap=True, highlight=False)
    folder: Path | None = None
    try:
        options = tyro.cli(Options, prog="python -m gradflow.train_and_trace", args=arguments)
        end_in_good_order()
        plan = make_plan(options.configuration, resumed=options.resume is not None)
        folder = plan.folder
        show_plan(console, plan)
        with progress_bar(console) as bar:

            def progress_of(job: Job) -> ConsoleProgress:
                steps = steps_per_epoch(len(job.split.training), job.configuration.batch_size)
                return ConsoleProgress(console, bar, job, steps)

            results = run(plan, progress_of)
        show_results(console, plan.folder, results)
    except GradflowError as error:
        errors.print(f"error: {error}", markup=False)
        return EXIT_ERROR
    except (MemoryError, torch.OutOfMemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else "no memory is left"
        errors.print(f"error: out of memory ({reason}){_kept(folder)}", markup=False)
        return EXIT_ERROR
    except KeyboardInterrupt as interrupt:
        errors.print(f"interrupted{_kept(folder)}", markup=False)
        return interrupt.status if isinstance(interrupt, Terminated) else EXIT_INTERRUPTED
    return 0


def _kept(folder: Path | None) -> str:
    """What to say of the folder of a training that was interrupted."""
    if folder is None or not folder.exists():
        return ""
    return f": what was recorded is kept; go on with --resume {quoted(folder)}"


if __name__ == "__main__":
    sys.exit(main())
