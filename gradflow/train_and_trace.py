"""`python -m gradflow.train_and_trace`: trains networks and records their gradients."""

import sys
from collections.abc import Sequence
from pathlib import Path

import tyro
from rich.console import Console

from gradflow.configuration import Configuration
from gradflow.console import ConsoleProgress, progress_bar, show_plan, show_results
from gradflow.data import steps_per_epoch
from gradflow.errors import GradflowError
from gradflow.experiment import make_plan, run
from gradflow.job import Job

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 for an error, 130 for an interrupt."""
    console, errors = Console(), Console(stderr=True, soft_wrap=True, highlight=False)
    folder: Path | None = None
    try:
        options = tyro.cli(Configuration, prog="python -m gradflow.train_and_trace", args=arguments)
        plan = make_plan(options)
        folder = plan.folder
        show_plan(console, plan)
        with progress_bar(console) as bar:

            def progress_of(job: Job) -> ConsoleProgress:
                steps = steps_per_epoch(len(job.split.training), options.batch_size)
                return ConsoleProgress(console, bar, job, steps)

            results = run(plan, progress_of)
        show_results(console, plan.folder, results)
    except GradflowError as error:
        errors.print(f"error: {error}", markup=False)
        return EXIT_ERROR
    except KeyboardInterrupt:
        kept = f": what was recorded is kept in {folder}" if folder and folder.exists() else ""
        errors.print(f"interrupted{kept}", markup=False)
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
