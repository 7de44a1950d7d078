"""`python -m gradflow.train_and_trace`: trains networks and records their gradients."""

import sys
from collections.abc import Sequence

import tyro
from rich.console import Console

from gradflow.command import run_command
from gradflow.configuration import Configuration
from gradflow.console import ConsoleProgress, progress_bar, show_plan, show_results
from gradflow.data import steps_per_epoch
from gradflow.experiment import Plan, make_plan, run
from gradflow.job import Job


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 for an error, 130 for an interrupt."""
    plans: list[Plan] = []

    def work() -> None:
        options = tyro.cli(Configuration, prog="python -m gradflow.train_and_trace", args=arguments)
        plans.append(make_plan(options))
        carry_out(plans[0], Console())

    return run_command(work, lambda: _interrupted(plans))


def carry_out(plan: Plan, console: Console) -> None:
    """Train and trace every network of `plan`, with its progress on `console`."""
    show_plan(console, plan)
    with progress_bar(console) as bar:

        def progress_of(job: Job) -> ConsoleProgress:
            steps = steps_per_epoch(len(job.split.training), plan.configuration.batch_size)
            return ConsoleProgress(console, bar, job, steps)

        results = run(plan, progress_of)
    show_results(console, plan.folder, results)


def _interrupted(plans: Sequence[Plan]) -> str:
    kept = [plan.folder for plan in plans if plan.folder.exists()]
    return f"interrupted: what was recorded is kept in {kept[0]}" if kept else "interrupted"


if __name__ == "__main__":
    sys.exit(main())
