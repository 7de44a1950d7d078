"""Runs the probes due at the end of an epoch, each on a copy of the network, and times them."""

import copy
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch

from gradflow.probes.probe import NotMeasurableError, Probe, Subject, is_due

WriteTable = Callable[[str, Mapping[str, Any]], None]
PROBE_COSTS = "probe_costs"


def run_probes(
    probes: Iterable[Probe],
    subject: Subject,
    write_table: WriteTable,
    other_seconds: Mapping[str, float] | None = None,
) -> None:
    """Run every probe that is due for `subject`, and write its results and its cost.

    Each probe gets a copy of `subject.model`. The model and the global random state do not change.

    Args:
        probes: in the order in which they run.
        subject: its model may be in any mode and may have hooks; the copies have none.
        write_table: called with the name of a table and its columns without `epoch`.
        other_seconds: by name, the seconds of other interventions at this epoch's end.
    """
    other_seconds = other_seconds or {}
    costs: dict[str, list[Any]] = {
        "probe": list(other_seconds),
        "seconds": list(other_seconds.values()),
        "skipped": [None] * len(other_seconds),
    }
    for probe in probes:
        if not is_due(probe, subject):
            continue
        start = time.monotonic()
        skipped = _run_probe(probe, subject, write_table)
        costs["probe"].append(probe.name)
        costs["seconds"].append(time.monotonic() - start)
        costs["skipped"].append(skipped)
    if costs["probe"]:
        write_table(PROBE_COSTS, costs)


def _run_probe(probe: Probe, subject: Subject, write_table: WriteTable) -> str | None:
    """Run `probe`; the reason if it cannot measure this network, else None."""
    subject_copy = replace(subject, model=copy_without_hooks(subject.model))
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=devices):
            tables = probe.measure(subject_copy)
    except NotMeasurableError as reason:
        return str(reason)
    for name, columns in tables.items():
        write_table(name, columns)
    return None


def copy_without_hooks(model: torch.nn.Module) -> torch.nn.Module:
    """A copy of `model` in evaluation mode, without gradients and without any forward hooks."""
    duplicate = copy.deepcopy(model).eval()
    duplicate.zero_grad(set_to_none=True)
    for module in duplicate.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return duplicate
