"""How far the recording in a folder has got: which files are there, how many epochs, what ended."""

from dataclasses import dataclass
from pathlib import Path

from gradflow.runs.format.files import EXPERIMENT_FILE, RUN_FILE
from gradflow.runs.format.schema import TABLE_OF_FOLDER
from gradflow.runs.reading.run import Experiment, open_experiment

_ENDED_EARLY = ("interrupted", "failed")


@dataclass(frozen=True)
class Progress:
    """How far an experiment, or a single run, has got.

    Fields:
        epochs: recorded so far, in all runs together.
        planned: epochs that all runs together are to have; None where a run does not say.
        runs: how many runs there are, those that have not started included.
        statuses: of the runs that have started: `running`, `complete`, `interrupted`, `failed`.
    """

    epochs: int
    planned: int | None
    runs: int
    statuses: tuple[str, ...]

    @property
    def ended(self) -> bool:
        """Whether nothing more is to come: all runs are complete, or one of them broke off.

        The runs of an experiment are trained in turn, so that none follows one that broke off.
        """
        if "running" in self.statuses:
            return False
        return len(self.statuses) == self.runs or any(one in _ENDED_EARLY for one in self.statuses)

    @property
    def epochs_text(self) -> str:
        """Such as `epoch 4 of 10`, or `14 of 20 epochs in 2 runs`."""
        of = "" if self.planned is None else f" of {self.planned}"
        if self.runs == 1:
            return f"epoch {self.epochs}{of}"
        return f"{self.epochs}{of} epochs in {self.runs} runs"

    @property
    def outcome(self) -> str:
        """What has become of the training, as a sentence without its full stop."""
        if not self.ended:
            return "training goes on"
        ends = [status for status in _ENDED_EARLY if status in self.statuses]
        return {"interrupted": "training was interrupted", "failed": "training failed"}.get(
            ends[0] if ends else "", "training has ended"
        )


def progress_of(folder: Path) -> Progress:
    """How far the experiment or single run in `folder` has got.

    Raises `RunError` where there is no run in it yet, or a file is damaged.
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
    """Name, size and time of every recorded file in `folder`: equal while nothing has changed.

    Temporary files are left out, as is everything that is not recorded, such as reports.
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
            continue  # gone between the listing and now
        found.add((str(path.relative_to(folder)), status.st_size, status.st_mtime_ns))
    return frozenset(found)


def _planned(experiment: Experiment, runs: int) -> int | None:
    """The epochs that were asked for, which only `train_and_trace` writes down."""
    asked = [run.configuration.get("epochs") for run in experiment.runs]
    # Runs that have not started are those of the same configuration.
    asked += [asked[0]] * (runs - len(asked))
    known = [one for one in asked if isinstance(one, int)]
    return sum(known) if len(known) == len(asked) else None
