"""Combines several experiments into one, so that every analysis can run on all of them together.

Nothing on disk changes. If networks of different experiments have the same name, a label is added.
The label is the option in which the experiments differ, e.g. `plain34 (lr 0.001)`, if there is only
one; else it is the name of the folder.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from analyses.reading.options import options_of
from gradflow.errors import ConfigurationError
from gradflow.runs.format.files import parse_utc_time
from gradflow.runs.reading.run import Experiment, Run

MAX_LABEL_LENGTH = 24
# Options that are no label for an experiment: they depend on the machine or on the recording.
_NEVER_IN_LABELS = ("network", "device", "versions", "tracing")


def combine(experiments: Sequence[Experiment], folder: Path) -> Experiment:
    """All runs of `experiments` as one experiment; reports go to `folder`.

    Its description holds the labels of the members in `labels`. Run names are unique in it.

    Raises `ConfigurationError` if a run is in two experiments.
    """
    _require_distinct(experiments)
    labels = labels_of(experiments)
    names = Counter(run.name for one in experiments for run in one.runs)
    members = tuple(
        replace(
            one,
            runs=tuple(
                replace(run, label=_run_label(one, run, label)) if names[run.name] > 1 else run
                for run in one.runs
            ),
        )
        for one, label in zip(experiments, labels, strict=True)
    )
    networks = Counter(name for one in experiments for name in one.networks)
    runs = tuple(
        _renamed(run, label) if networks[run.network] > 1 else run
        for member, label in zip(members, labels, strict=True)
        for run in member.runs
    )
    moments = [parse_utc_time(one.description.get("created")) for one in experiments]
    newest = max((moment for moment in moments if moment), default=None)
    description = {
        "created": newest.isoformat() if newest else None,
        "labels": labels,
        "runs": [run.name for run in runs] + _not_started(experiments, labels),
    }
    return Experiment(folder, description, runs, members)


def labels_of(experiments: Sequence[Experiment]) -> list[str]:
    """A short label for each of `experiments`, different from the others."""
    by_option = _by_option(experiments)
    if by_option:
        return by_option
    folders = [one.folder.resolve() for one in experiments]
    names = [_shortened(folder.name) for folder in folders]
    if len(set(names)) < len(names):
        names = [_shortened(f"{folder.parent.name}/{folder.name}") for folder in folders]
    if len(set(names)) < len(names):
        names = [f"{place}: {name}" for place, name in enumerate(names, start=1)]
    return names


def _by_option(experiments: Sequence[Experiment]) -> list[str]:
    """Labels by the only option that differs; empty if several differ or labels are unusable."""
    options = [options_of(one.runs[0]) for one in experiments]
    differing = [
        name
        for name in dict.fromkeys(name for one in options for name in one)
        if name.split(".")[0] not in _NEVER_IN_LABELS
        and len({one.get(name) for one in options}) > 1
    ]
    if len(differing) != 1 or any(differing[0] not in one for one in options):
        return []
    (name,) = differing
    if name == "seed" and any(len({run.seed for run in one.runs}) > 1 for one in experiments):
        return []
    labels = [f"{name.rpartition('.')[2]} {one[name]}" for one in options]
    usable = len(set(labels)) == len(labels) and max(map(len, labels)) <= MAX_LABEL_LENGTH
    return labels if usable else []


def _shortened(name: str) -> str:
    """The start and the end of a long name: dates, which distinguish experiments, come last."""
    half = MAX_LABEL_LENGTH // 2
    return name if len(name) <= MAX_LABEL_LENGTH else f"{name[: half - 1]}…{name[-half:]}"


def _renamed(run: Run, label: str) -> Run:
    return replace(run, description={**run.description, "network": f"{run.network} ({label})"})


def _run_label(experiment: Experiment, run: Run, label: str) -> str:
    """The label of `run`: the network if it has no other run, else the name of the run."""
    alone = len(experiment.of_network(run.network)) == 1
    return f"{run.network if alone else run.name} ({label})"


def _require_distinct(experiments: Sequence[Experiment]) -> None:
    folders = Counter(run.folder.resolve() for one in experiments for run in one.runs)
    (folder, times) = folders.most_common(1)[0]
    if times > 1:
        raise ConfigurationError(
            f"the run in {folder} is named {'twice' if times == 2 else f'{times} times'}: "
            "name each folder once"
        )


def _not_started(experiments: Sequence[Experiment], labels: Sequence[str]) -> list[str]:
    return [
        f"{name} ({label})"
        for one, label in zip(experiments, labels, strict=True)
        for name in one.description.get("runs") or []
        if str(name) not in {run.name for run in one.runs}
    ]
