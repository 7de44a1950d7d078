"""The progress of a recording: its files, its number of epochs, and whether it has ended."""

from dataclasses import dataclass
from pathlib import Path

from gradflow.runs.format.files import EXPERIMENT_FILE, RUN_FILE
from gradflow.runs.format.schema import TABLE_OF_FOLDER
from gradflow.runs.reading.run import Experiment, open_experiment

_ENDED_EARLY = ("interrupted", "failed")


@dataclass(frozen=True)
class Progress:
    """How far an experiment or a single run has got.

    Fields:
        epochs: epochs recorded so far, in all runs together.
        planned: epochs planned for all runs together; None if a run does not say.
        runs: the number of runs, including those that have not started.
        statuses: one per started run: `running`, `complete`, `interrupted` or `failed`.
    """

    epochs: int
    planned: int | None
    runs: int
    statuses: tuple[str, ...]

    @property
    def ended(self) -> bool:
        """Whether the recording is over: all runs are complete, or one of them ended early.

        The runs of an experiment are trained one after another, so none follows one that ended
        early.
        """
        if "running" in self.statuses:
            return False
        return len(self.statuses) == self.runs or any(one in _ENDED_EARLY for one in self.statuses)

    @property
    def epochs_text(self) -> str:
        """The number of epochs, e.g. `epoch 4 of 10` or `14 of 20 epochs in 2 runs`."""
        of = "" if self.planned is None else f" of {self.planned}"
        if self.runs == 1:
            return f"epoch {self.epochs}{of}"
        return f"{self.epochs}{of} epochs in {self.runs} runs"

    @property
    def outcome(self) -> str:
        """Whether training goes on or how it ended, as a sentence without its full stop."""
        if not self.ended:
            return "training goes on"
        ends = [status for status in _ENDED_EARLY if status in self.statuses]
        return {"interrupted": "training was interrupted", "failed": "training failed"}.get(
            ends[0] if ends else "", "training has ended"
        )


def progress_of(folder: Path) -> Progress:
    """How far the experiment or single run in `folder` has got.

    Raises `RunError` if it holds no run yet, or a file is damaged.
    """
    experiment = open_experiment(folder)
    named = experiment.description.get("runs") or []
    return Progress(
        epochs=sum(len(run.epochs) for run in experiment.runs),
        planned=_planned(experiment, max(len(named), 1)),
        runs=max(len(named), 1),
        statuses=tuple(str(run.description.get("status")) for run in experiment.runs),
    )


def recorded_files(folder: Path) -> frozenset[tuple[str, int, int]]:
    """Name, size and time of every recorded file in `folder`, to notice changes.

    Temporary files are left out, and so are files that are not recorded, e.g. reports.
    """
    patterns = [EXPERIMENT_FILE]
    for run in ("", "*/"):
        patterns += [f"{run}{RUN_FILE}", f"{run}layers.parquet"]
        patterns += [f"{run}{name}/*.parquet" for name in TABLE_OF_FOLDER if name != "layers"]
    found = set()
    for path in (path for pattern in patterns for path in folder.glob(pattern)):
        try:
            status = path.stat()
        except OSError:
            continue  # removed since the listing
        found.add((str(path.relative_to(folder)), status.st_size, status.st_mtime_ns))
    return frozenset(found)


def _planned(experiment: Experiment, runs: int) -> int | None:
    """The epochs that were asked for; only `train_and_trace` records them."""
    asked = [run.configuration.get("epochs") for run in experiment.runs]
    # Runs that have not started have the same configuration.
    asked += [asked[0]] * (runs - len(asked))
    known = [one for one in asked if isinstance(one, int)]
    return sum(known) if len(known) == len(asked) else None
