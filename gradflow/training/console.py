"""The terminal output of `train_and_trace`: a progress bar, a line per epoch, a final table."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich import progress as bars
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gradflow.data import ImageData, Split, find_duplicates
from gradflow.errors import printable
from gradflow.training.configuration import Configuration
from gradflow.training.experiment import Plan, TrainedNetwork
from gradflow.training.job import Job
from gradflow.training.loop import EpochSummary
from gradflow.training.steps.computation import computation_of


class Heading:
    """Names the run to which the lines that follow belong, if those before were of another one."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = ""

    def show(self, job: Job) -> None:
        """Print the network and seed of `job`, unless that heading was the last one."""
        if job.folder.name == self._shown:
            return
        # Runs side by side take turns: an empty line before each would take too much room.
        alone = job.configuration.processes == 1 or not self._shown
        start = "\n" if alone else ""
        self._console.print(f"{start}[bold]{job.network}[/], seed {job.seed}")
        self._shown = job.folder.name


class ConsoleProgress:
    """Shows one run: a bar with loss, accuracies and remaining time, and a line for each epoch."""

    def __init__(
        self, console: Console, bar: bars.Progress, job: Job, steps: int, heading: Heading
    ) -> None:
        self._console = console
        self._bar = bar
        self._job = job
        self._heading = heading
        self._steps = steps
        self._epochs = job.configuration.epochs
        self._balanced = job.data.imbalanced
        self._done = 0
        self._validation = ""
        alone = job.configuration.processes == 1
        name = job.network if alone else job.folder.name
        self._task = bar.add_task(name, total=steps * self._epochs, state="")
        if alone:
            heading.show(job)

    def on_start(self, epoch: int) -> None:
        """Move the bar to the beginning of `epoch`, and say after which epoch a run is resumed."""
        self._done = epoch - 1
        if self._done:
            self._heading.show(self._job)
            self._console.print(f"resumed after epoch {self._done}", highlight=False)

    def on_steps_done(self, step: int, loss: float, accuracy: float) -> None:
        """Move the bar to batch `step` of the current epoch."""
        state = f"loss {loss:.3f}  acc {accuracy:.1%}{self._validation}"
        completed = self._done * self._steps + step
        self._bar.update(self._task, completed=completed, state=state)

    def on_epoch_end(self, summary: EpochSummary) -> None:
        """Print the line of a finished epoch."""
        self._done = summary.epoch
        self._validation = f"  val {summary.val_accuracy:.1%}"
        line = epoch_line(summary, self._epochs, balanced=self._balanced)
        self._heading.show(self._job)
        self._console.print(line, highlight=False)
        if self._done == self._epochs:
            self._bar.remove_task(self._task)


def progress_bar(console: Console) -> bars.Progress:
    """The bar under the epoch lines. It disappears at the end, and is not written to a file."""
    return bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(bar_width=None),
        bars.TextColumn("{task.fields[state]}"),
        bars.TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def epoch_line(summary: EpochSummary, epochs: int, *, balanced: bool = False) -> str:
    """The line of an epoch as markup, at most 79 columns wide; `balanced` adds that accuracy."""
    width = len(str(epochs))
    recalibrated = summary.recalibrated_val_accuracy
    re_estimated = "" if recalibrated is None else f" ({recalibrated:5.1%} re-est.)"
    best = "  [bold]* best[/]" if summary.new_best else ""
    if balanced and summary.val_balanced_accuracy is not None:  # room is made by shorter words
        short = "" if recalibrated is None else f" re {recalibrated:5.1%}"
        re_estimated = f" bal {summary.val_balanced_accuracy:5.1%}{short}"
        best = " [bold]*[/]" if summary.new_best else ""
    return (
        f"epoch {summary.epoch:{width}}/{epochs}"
        f"  train {summary.train_loss:5.3f} {summary.train_accuracy:5.1%}"
        f"  val {summary.val_loss:5.3f} {summary.val_accuracy:5.1%}"
        f"{re_estimated}  {summary.seconds:3.0f} s{best}"
    )


def show_plan(console: Console, plan: Plan) -> None:
    """Print the data, the networks, the device and the options before the training starts."""
    options = plan.configuration
    part = next(iter(plan.splits.values()))
    channels, height, width = plan.data.images.shape[1:]
    color = "gray" if channels == 1 else "color"
    console.print(
        f"[bold]{escape(printable(options.data))}[/]: {len(plan.data.labels)} {color} images of "
        f"{height}x{width} in {len(plan.data.classes)} classes\n"
        f"{len(part.training)} to train on, {len(part.validation)} to validate on",
        highlight=False,
    )
    if plan.data.repeated_rows:
        console.print(
            f"{plan.data.repeated_rows:,} rows of the CSV repeat another row and are left out",
            highlight=False,
        )
    if plan.data.official_validation is not None and options.validation_fraction != (
        Configuration.validation_fraction
    ):
        console.print("--validation-fraction has no effect on data with a split of their own")
    for note in plan.data.notes:
        style = "yellow" if note.startswith(("warning", "left out")) else None
        console.print(escape(printable(note)), style=style, highlight=False)
    if plan.data.imbalanced:
        console.print(
            escape(printable(_imbalance(plan.data, part))), style="yellow", highlight=False
        )
    duplicates = find_duplicates(plan.data)
    if duplicates.distinct < len(plan.data):
        console.print(
            f"{duplicates.distinct} of them are distinct files; copies of one file are all in the "
            "same part of the split",
            highlight=False,
        )
    for names in duplicates.conflicts:
        console.print(
            escape(printable(f"warning: one image has several labels: {', '.join(names)}")),
            style="yellow",
            highlight=False,
        )
    computation = computation_of(options, plan.device)
    precision = "" if computation.precision == "float32" else f" in {computation.precision}"
    console.print(
        f"{', '.join(options.models)} on {plan.device.type}{precision}, {options.epochs} epochs, "
        f"batch {options.batch_size}, recorded: {plan.jobs()[0].schedule()}",
        highlight=False,
    )
    if computation.note:
        console.print(computation.note, style="yellow", highlight=False)
    if options.compile and options.trace_every == 1:
        console.print(
            "--compile has no effect with --trace-every 1: recorded steps run uncompiled",
            style="yellow",
            highlight=False,
        )
    if options.sinks not in ((), ("none",)):
        places = printable(", ".join(options.sinks))
        console.print(f"numbers are also written to {escape(places)}", highlight=False)
    elif not options.sinks and _asks_for_numbers(options):
        console.print(
            "--sink-quantities and --sink-every have no effect without --sinks",
            style="yellow",
            highlight=False,
        )
    legend = _BALANCED_LEGEND if plan.data.imbalanced else _LEGEND
    console.print(legend, style="dim", highlight=False)


def _asks_for_numbers(options: Configuration) -> bool:
    """Whether it is said which numbers the sinks get."""
    return bool(options.sink_quantities) or options.sink_every != Configuration.sink_every


_LEGEND = (
    "Each line: cross-entropy and accuracy; re-est. is the accuracy with batch-norm\n"
    "statistics re-estimated on the training images; * best marks a kept checkpoint."
)
_BALANCED_LEGEND = (
    "Each line: cross-entropy and accuracy; bal is the mean of the accuracies of the\n"
    "classes; re is the accuracy with batch-norm statistics re-estimated on the\n"
    "training images; * marks a kept checkpoint."
)


def _imbalance(data: ImageData, part: Split) -> str:
    """That the classes are imbalanced, and how accurate it is to always answer the largest one."""
    counts = data.class_counts
    few, many = min(range(len(counts)), key=counts.__getitem__), counts.index(max(counts))
    share = float((data.labels[part.validation] == many).double().mean())
    return (
        f"the classes are imbalanced: from {counts[few]:,} images ({data.classes[few]}) to "
        f"{counts[many]:,} ({data.classes[many]}); to answer always {data.classes[many]} would be "
        f"{share:.1%} accurate, so read the balanced accuracy too"
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def show_results(
    console: Console, folder: Path, results: Sequence[TrainedNetwork], *, balanced: bool = False
) -> None:
    """Print the table of accuracies, the experiment's folder, and the next command.

    `balanced` adds the balanced accuracy of the best epoch.
    """
    table = Table(title="Validation accuracy", title_justify="left")
    table.add_column("network")
    headings = ["seed", "best", "at epoch", "last", "re-estimated, last", "time"]
    if balanced:
        headings.insert(2, "balanced")
        headings[headings.index("re-estimated, last")] = "re-est., last"  # in 80 columns
    for heading in headings:
        table.add_column(heading, justify="right")
    for trained in results:
        last = trained.epochs[-1]
        table.add_row(
            trained.network,
            str(trained.seed),
            f"{trained.best.val_accuracy:.1%}",
            *([_percent(trained.best.val_balanced_accuracy)] if balanced else []),
            str(trained.best.epoch),
            f"{last.val_accuracy:.1%}",
            _percent(last.recalibrated_val_accuracy),
            f"{sum(summary.seconds for summary in trained.epochs):.0f} s",
        )
    console.print()
    console.print(table)
    # Users copy paths and commands, so these are neither wrapped nor colored.
    console.print(
        f"Recorded in {printable(str(folder))}", soft_wrap=True, markup=False, highlight=False
    )
    command = f"Next: python -m gradflow.report {shell_quoted(folder)}"
    console.print(command, soft_wrap=True, markup=False, highlight=False)


def shell_quoted(path: Path) -> str:
    """`path` quoted for a shell, whatever characters its name has."""
    text = printable(str(path))
    if text.startswith("-"):
        text = f"./{text}"  # not an option
    return shlex.quote(text) if os.name == "posix" else f'"{text}"'
