"""What can be asked: a run, an experiment, their folders, or several of them as a comparison."""

from collections.abc import Collection, Sequence
from pathlib import Path

from gradflow.command_line.packages import check_packages
from gradflow.errors import ConfigurationError
from gradflow.runs.reading.locating import RUNS_FOLDER, comparison_name, find_folder
from gradflow.runs.reading.run import Experiment, Run, open_experiment

One = str | Path | Run | Experiment
Source = One | Sequence[One]


def experiment_of(source: Source) -> Experiment:
    """The experiment that `source` means; a single run is an experiment of one.

    A text or path names a folder as it does for `python -m gradflow.report`: a path, or a name in
    the folder `runs`. Several sources are combined as for a comparison.

    Raises `RunError` if a folder has no run or a damaged one, and `ConfigurationError` if `source`
    is something else, is empty, or names a run twice.
    """
    check_packages()
    if not isinstance(source, list | tuple):
        return _one(source)
    if not source:
        raise ConfigurationError("no run was given: name one, or its folder")
    experiments = [_one(one) for one in source]
    if len(experiments) == 1:
        return experiments[0]
    from analyses.comparison.combination import combine  # noqa: PLC0415 - slow to load

    out = RUNS_FOLDER / comparison_name([one.folder for one in experiments])
    return combine(experiments, out)


def keys_of(only: str | Collection[str]) -> tuple[str, ...]:
    """The keys of analyses in `only`: a collection, or a text with commas; each key once."""
    keys = only.split(",") if isinstance(only, str) else list(only)
    return tuple(dict.fromkeys(key.strip() for key in keys if key.strip()))


def _one(source: object) -> Experiment:
    if isinstance(source, Experiment):
        return source
    if isinstance(source, Run):
        return Experiment(source.folder, source.description, (source,))
    if isinstance(source, str | Path):
        return open_experiment(find_folder(Path(source), RUNS_FOLDER))
    raise ConfigurationError(
        f"a run, an experiment or the folder of one was expected, not a {type(source).__name__}"
    )
