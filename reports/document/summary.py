"""Describes an experiment in words: networks, progress of the runs, and training settings."""

import shlex
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pandas as pd

from analyses.result import Length, Table
from analyses.wording.phrases import listing, plural
from analyses.wording.translatable import Numeral, Said
from gradflow.runs.format.files import parse_utc_time
from gradflow.runs.reading.locating import name_for_commands
from gradflow.runs.reading.run import Experiment, Run
from reports.document.sections import Numbering, table_element, table_label
from reports.document.wording import cell_text
from reports.elements import TableElement

# The most important training settings, worded for a methods section.
_SETTINGS = {
    "optimizer": "optimizer {}",
    "lr": "learning rate {}",
    "weight_decay": "weight decay {}",
    "batch_size": "batch size {}",
    "norm": "normalization {}",
    "init": "initialization {}",
}
# Entries of `run.json` that the report shows elsewhere in words.
_SHOWN_ELSEWHERE = ("sinks",)
STATUS_WORDS = {
    "running": "is still running",
    "interrupted": "was interrupted",
    "failed": "failed",
}
_LONGEST_VALUE = 400
_MOST_ENTRIES = 500  # ten times what train_and_trace records
_MOST_NAMED = 10


def title_of(experiment: Experiment) -> str:
    """The title of the report: its networks, or the experiments that it compares."""
    if experiment.members:
        return Said("Gradient flow: {members} compared", members=listing(_labels(experiment)))
    return Said("Gradient flow in {networks}", networks=listing(experiment.networks))


def question_of(experiment: Experiment) -> str:
    """The question of the report; it mentions accuracy only if accuracy was recorded."""
    networks = experiment.networks
    if experiment.members:
        return Said(
            "What differs between {members} in how the gradients flow?",
            members=listing(_labels(experiment)),
        )
    named = {"networks": listing(networks)}
    if not any("accuracy" in str(name) for run in experiment.runs for name in run.epochs.columns):
        return Said("What do the gradients in {networks} do?", **named)
    if len(networks) == 1:
        return Said(
            "What do the gradients in {networks} do, and does that explain what we see in its "
            "accuracy?",
            **named,
        )
    return Said(
        "What do the gradients in {networks} do, and does that explain what we see in their "
        "accuracy?",
        **named,
    )


def created_of(experiment: Experiment) -> datetime | None:
    """When the experiment was made, in UTC; None if it is not recorded."""
    return parse_utc_time(experiment.description.get("created"))


def warnings_of(experiment: Experiment) -> tuple[str, ...]:
    """Warnings about runs that are incomplete, not started, or of different lengths."""
    sentences = []
    for run in experiment.runs:
        status = str(run.description.get("status", "of unknown status"))
        if status != "complete":
            words = STATUS_WORDS.get(status)
            sentences.append(
                Said(
                    "The run {run} {status}: it has recorded {epochs}.",
                    run=run.name,
                    status=Said(words) if words else Said("is {status}", status=status),
                    epochs=plural(_epochs_of(run), "epoch"),
                )
            )
    started = {run.name for run in experiment.runs}
    waiting = [name for name in experiment.description.get("runs") or [] if name not in started]
    sentences += [
        Said("The run {run} has not started.", run=str(name)) for name in waiting[:_MOST_NAMED]
    ]
    if (further := len(waiting) - _MOST_NAMED) > 0:
        sentences.append(
            Said("{runs} have not started either.", runs=plural(further, "further run"))
        )
    lengths = sorted({_epochs_of(run) for run in experiment.runs})
    if len(lengths) > 1:
        sentences.append(
            Said(
                "The runs have recorded {fewest} to {most}. The last epoch means each run's own "
                "last epoch, or in comparisons the last that they share.",
                fewest=Numeral(f"{lengths[0]}"),
                most=plural(lengths[-1], "epoch"),
            )
        )
    return tuple(sentences)


def training_line(experiment: Experiment) -> str:
    """How the networks were trained, in one line."""
    seeds = list(dict.fromkeys(run.seed for run in experiment.runs if run.seed is not None))
    first = experiment.runs[0]
    # Runs that were recorded separately may have different settings; only common ones are given.
    own, *others = (run.configuration for run in experiment.runs)
    settings = {
        name: own[name]
        for name in _SETTINGS
        if name in own and all(other.get(name) == own[name] for other in others)
    }
    parts = [listing(experiment.networks)]
    if seeds:
        parts.append(f"{plural(len(seeds), 'seed')} ({', '.join(map(str, seeds))})")
    parts += sorted({_data_text(run) for run in experiment.runs})
    parts.append(_epochs_text(experiment))
    parts += [
        text.format(verbatim(settings[key])) for key, text in _SETTINGS.items() if key in settings
    ]
    parts.append(f"on {first.description['device']}" if first.description.get("device") else "")
    return "; ".join(part for part in parts if part) + "."


def section_command(experiment: Experiment, analysis: str) -> str:
    """The command that makes the section of `analysis` again."""
    return f"python -m gradflow.report {_folders(experiment)} --only {shlex.quote(analysis)}"


def _folders(experiment: Experiment) -> str:
    names = [name_for_commands(one.folder) for one in experiment.members or (experiment,)]
    return " ".join(shlex.quote(name) for name in names)


FULLER = {
    Length.SUMMARY: (
        "standard",
        "The standard report has each statement with its evidence, and the figures that show it",
    ),
    Length.STANDARD: (
        "full",
        "The full report has every statement, figure and table, the numbers and rules behind each "
        "verdict, methods and sources",
    ),
}


def fuller_text(experiment: Experiment, length: Length) -> str:
    """What the next longer report has, and the command that writes it; "" for the longest."""
    if length not in FULLER:
        return ""
    name, has = FULLER[length]
    command = f"python -m gradflow.report {_folders(experiment)} --length {name}"
    return Said("{has}: {command}", has=Said(has), command=command)


def configuration_of(experiment: Experiment, numbering: Numbering) -> tuple[TableElement, ...]:
    """Tables of all recorded entries: those that all runs share, then those that differ."""
    own = {} if len(experiment.runs) == 1 else _flattened(experiment.description)
    described = {
        run.name: _flattened(
            {name: one for name, one in run.description.items() if name not in _SHOWN_ELSEWHERE}
        )
        for run in experiment.runs
    }
    names = list(dict.fromkeys(name for entries in described.values() for name in entries))
    common = [
        name
        for name in names
        if len({entries.get(name) for entries in described.values()}) == 1 and name != "seed"
    ]
    known_to_all = set(common)
    differing = [name for name in names if name not in known_to_all]
    shared = {**own, **{name: next(iter(described.values()))[name] for name in common}}
    tables = [
        Table(
            "configuration",
            "Configuration, versions, device and tracing",
            pd.DataFrame({"entry": list(shared), "value": list(shared.values())}),
        )
    ]
    if differing := differing[:_MOST_ENTRIES]:
        rows = [
            {"run": run, **{name: entries.get(name, "") for name in differing}}
            for run, entries in described.items()
        ]
        tables.append(Table("runs", "What differs between the runs", pd.DataFrame(rows)))
    return tuple(_whole_table(table, numbering) for table in tables)


def _labels(experiment: Experiment) -> list[str]:
    return [str(label) for label in experiment.description["labels"]]


def _whole_table(table: Table, numbering: Numbering) -> TableElement:
    return table_element(table, table_label(numbering), longest=_MOST_ENTRIES)


def _flattened(description: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    entries: dict[str, str] = {}
    for name, value in description.items():
        if isinstance(value, Mapping):
            entries |= _flattened(value, f"{prefix}{name}.")
        else:
            text = verbatim(value)
            kept = text[:_LONGEST_VALUE]
            entries[f"{prefix}{name}"[:_LONGEST_VALUE]] = (
                text if kept == text else f"{kept} … (shortened)"
            )
    return entries


def verbatim(value: Any) -> str:
    """The exact value of a setting, without rounding, so that it can be used again."""
    if isinstance(value, list):
        return ", ".join(verbatim(item) for item in value)
    return cell_text(value) if value is None or isinstance(value, bool) else str(value)


def _epochs_of(run: Run) -> int:
    return len(run.epochs)


def _epochs_text(experiment: Experiment) -> str:
    lengths = sorted({_epochs_of(run) for run in experiment.runs})
    if len(lengths) == 1:
        return plural(lengths[0], "epoch") if lengths[0] else ""
    return f"{lengths[0]} to {plural(lengths[-1], 'epoch')}"


def _data_text(run: Run) -> str:
    sizes = run.images["subset"].value_counts() if len(run.images) else {}
    images = listing(
        [f"{sizes[name]:,} {name}" for name in ("training", "validation") if name in sizes]
    )
    data = run.configuration.get("data")
    name = f"data {data}" if data else ""
    return " with ".join(part for part in (name, f"{images} images" if images else "") if part)
