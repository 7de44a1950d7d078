"""The command `python -m gradflow.export`: writes recorded runs to TensorBoard, W&B and others."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from gradflow.command_line.exit_codes import run_command
from gradflow.errors import ConfigurationError, RunError, printable
from gradflow.runs.format.limits import require_valid_path
from gradflow.runs.reading.locating import RUNS_FOLDER, find_folder, newest_experiment
from gradflow.sinks.by_name import (
    NAMES,
    own_place,
    require_known,
    require_no_events,
    sink_by_name,
)
from gradflow.sinks.names import DEFAULT_QUANTITIES

if TYPE_CHECKING:
    from gradflow.runs.reading.run import Run
    from gradflow.sinks.sink import Sink

_REPORTS = ("report.html", "report.pdf")
_FOLDERS = tyro.conf.arg(metavar="[FOLDER ...]", help_behavior_hint="")


@dataclass(frozen=True)
class Options:
    """Write the numbers of recorded runs to TensorBoard, W&B, MLflow, Trackio, Aim or CSV.

    The report, if there is one, is put among the artifacts of each run, where there are such.
    """

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional, _FOLDERS] = ()
    """Experiments or single runs, given by path or by name in the runs folder; the default is the
    newest experiment in the runs folder."""

    to: Annotated[str, tyro.conf.arg(metavar="NAME[,NAME]", help_behavior_hint="")] = ""
    """Where to: tensorboard, wandb, mlflow, trackio, aim, csv."""

    place: Annotated[str | None, tyro.conf.arg(metavar="PLACE", help_behavior_hint="")] = None
    """The folder of TensorBoard (default: tensorboard in the run), the file of CSV (default:
    quantities.csv in the run), the project of W&B and Trackio, the tracking address of MLflow, the
    repository of Aim. Of several runs, each has a folder or file of its own in the place."""

    quantities: Annotated[
        str, tyro.conf.arg(metavar="PATTERN[,PATTERN]", help_behavior_hint="")
    ] = ""
    """Patterns of what is written, such as gradient_norm/layer1.*; by default a small choice. See
    docs/howto/sinks.md."""

    every: Literal["step", "epoch"] = "step"
    """Write all recorded steps, or of each epoch the last of them."""

    prefix: str = "gradflow"
    """What all names begin with."""

    runs_folder: Path = RUNS_FOLDER
    """Folder in which experiments are found by name."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv`; return 0, 1 after an error, or 130 after an interruption."""

    def work() -> int:
        return export(tyro.cli(Options, args=argv, prog="python -m gradflow.export"))

    return run_command(
        work, lambda: "interrupted: what is not listed above is not there as a whole"
    )


def export(options: Options) -> int:
    """Write the runs that `options` name to each sink, with a line for each; return 0.

    Raises `GradflowError` if there is no run, or a sink cannot be written to.
    """
    # Imported here: `--help` and a wrong option do not need them.
    from gradflow.runs.reading.run import open_experiment  # noqa: PLC0415
    from gradflow.sinks.replay import replay, takes_files  # noqa: PLC0415

    kinds = _kinds(options.to)
    without_report = False
    folders = options.folders or (newest_experiment(options.runs_folder),)
    for folder in (*folders, options.runs_folder):
        require_valid_path(folder)
    runs = [
        run
        for named in folders
        for run in open_experiment(find_folder(named, options.runs_folder)).runs
    ]
    for kind in kinds:
        for run in runs:
            sink = _sink(kind, options, run, len(runs) > 1)
            reports = _report_files(run)
            done = replay(run, sink, reports)
            drawn = f" and {done.histograms:,} histograms" if done.histograms else ""
            files = f", with {' and '.join(one.name for one in done.files)}" if done.files else ""
            print(
                f"{run.name}: {done.scalars:,} numbers{drawn} of {done.steps:,} steps to "
                f"{sink.kind} ({printable(sink.place)}){files}"
            )
            _note(run, sink)
            without_report = without_report or (takes_files(sink) and not reports)
    if without_report:
        print("There is no report to go with them: `python -m gradflow.report` writes one.")
    return 0


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(dict.fromkeys(one.strip() for one in text.split(",") if one.strip()))
    if not kinds:
        known = ", ".join(NAMES)
        raise ConfigurationError(f"--to says where the numbers go: name one or several of {known}")
    require_known(kinds, "--to")
    return kinds


def _report_files(run: "Run") -> list[Path]:
    """The reports on the run, or else on its experiment."""
    folder = run.folder.resolve()
    found = []
    for name in _REPORTS:
        for place in (folder, folder.parent):
            if (place / name).is_file():
                found.append(place / name)
                break
    return found


def _common(options: Options) -> dict[str, Any]:
    chosen = [one.strip() for one in options.quantities.split(",") if one.strip()]
    if options.quantities and not chosen:
        raise ConfigurationError("--quantities names none: name one, such as gradient_norm")
    return {
        "quantities": chosen or DEFAULT_QUANTITIES,
        "every": options.every,
        "prefix": options.prefix,
    }


def _sink(kind: str, options: Options, run: "Run", several: bool) -> "Sink":
    place: str | Path | None = options.place
    if several:
        place = own_place(kind, options.place, run.name)
    if kind == "tensorboard":
        require_no_events(Path(place or run.folder / "tensorboard"), "--place")
    elif kind == "csv" and place is not None:
        require_valid_path(Path(place))
    return sink_by_name(kind, place, **_common(options))


def _note(run: "Run", sink: "Sink") -> None:
    """Note in `run.json` what was written, or say why it is not noted."""
    from gradflow.runs.writing.run import note_export  # noqa: PLC0415

    try:
        note_export(run.folder, sink.summary())
    except RunError as error:
        print(f"{run.name}: its report will not mention this, since {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
