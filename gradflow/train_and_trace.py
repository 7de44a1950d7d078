"""`python -m gradflow.train_and_trace`: trains networks and records their gradients."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import tyro
from rich.console import Console

from gradflow.command_line.exit_codes import run_command
from gradflow.command_line.interrupts import raise_on_termination_signals
from gradflow.command_line.out_of_memory import reporting_out_of_memory
from gradflow.training.configuration import Configuration
from gradflow.training.console import (
    ConsoleProgress,
    Heading,
    progress_bar,
    shell_quoted,
    show_plan,
    show_results,
)
from gradflow.training.experiment import Plan, SomeFailedError, make_plan, run
from gradflow.training.job import Job
from gradflow.training.resumption import recorded_configuration


@dataclass(frozen=True)
class Options(Configuration):
    """Train networks on the same images and record their gradients as they train.

    Without options: plain34 and resnet34 on the digits of scikit-learn, with the settings of the
    experiment that this project started from.
    """

    resume: Path | None = None
    """The folder of an interrupted experiment: resume it with its recorded options. Only --device,
    --processes, --data, --layout, --columns, --on-bad-data and those of the sinks may be given in
    addition."""

    @property
    def configuration(self) -> Configuration:
        """The options of the training; if an experiment is resumed, its recorded options.

        Raises the errors of `recorded_configuration`.
        """
        values = {field.name: getattr(self, field.name) for field in fields(Configuration)}
        given = Configuration(**values)
        return given if self.resume is None else recorded_configuration(self.resume, given)


def main(
    arguments: Sequence[str] | None = None, prog: str = "python -m gradflow.train_and_trace"
) -> int:
    """Run the command. Exit status: 0, 1 for an error, 130 for Ctrl-C, 143 for SIGTERM."""
    plans: list[Plan] = []

    def work() -> None:
        options = tyro.cli(Options, prog=prog, args=arguments)
        raise_on_termination_signals()
        plans.append(make_plan(options.configuration, resumed=options.resume is not None))
        with reporting_out_of_memory(lambda: _resume_hint(plans)):
            run_plan(plans[0], Console())

    return run_command(work, lambda: f"interrupted{_resume_hint(plans)}")


def run_plan(plan: Plan, console: Console) -> None:
    """Train and trace every network of `plan`, and show the progress on `console`."""
    show_plan(console, plan)
    heading = Heading(console)
    try:
        with progress_bar(console) as bar:

            def progress_of(job: Job) -> ConsoleProgress:
                return ConsoleProgress(console, bar, job, job.steps_per_epoch, heading)

            results = run(plan, progress_of)
    except SomeFailedError as error:
        for trace in error.traces:
            print(trace, file=sys.stderr)
        if error.trained:
            show_results(console, plan.folder, error.trained, balanced=plan.data.imbalanced)
        raise
    show_results(console, plan.folder, results, balanced=plan.data.imbalanced)


def _resume_hint(plans: Sequence[Plan]) -> str:
    """How to resume an interrupted training; empty if it has not written anything yet."""
    kept = [plan.folder for plan in plans if plan.folder.exists()]
    if not kept:
        return ""
    return f": what was recorded is kept; go on with --resume {shell_quoted(kept[0])}"


if __name__ == "__main__":
    sys.exit(main())
