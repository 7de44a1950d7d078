"""The command `gradflow check`: is a recorded run healthy, or are its files whole? For CI."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gradflow.command_line.exit_codes import run_command
from gradflow.command_line.lines import print_item
from gradflow.errors import ConfigurationError

if TYPE_CHECKING:
    from gradflow.findings.checks import Check

_QUIET = tyro.conf.arg(help_behavior_hint="")


@dataclass(frozen=True)
class Options:
    """Exit with 3 if a network of a recorded run has a condition that spoils training.

    Writes nothing. `gradflow report RUN --fail-on ...` checks the same beside its report.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """An experiment or a single run, given by path or by name in the folder runs."""

    fail_on: Annotated[
        str | None, tyro.conf.arg(metavar="NAME[,NAME]", help_behavior_hint="(default: those)")
    ] = None
    """Conditions: non-finite, inputs, frozen-statistics, disconnected, not-updated, accumulating,
    overshooting, vanishing, exploding, vanishing-in-time, exploding-in-time, dead, saturated,
    clipped, lost-to-rounding, underflow, stalled, collapsed, dominated, conflicting, not-learning,
    overfitting, stale-statistics; also unused, spiking, shattered and noisy. Other findings are
    named with the verdict that fails: healthy=contradicted."""

    fail_on_unknown: Annotated[bool, tyro.conf.FlagCreatePairsOff, _QUIET] = False
    """Exit with 3 also if one of them cannot be told or was not recorded."""

    files: Annotated[bool, tyro.conf.FlagCreatePairsOff, _QUIET] = False
    """Check the files instead: is each there, and what was written? Exits with 1 if not."""

    repair: Annotated[bool, tyro.conf.FlagCreatePairsOff, _QUIET] = False
    """With --files: set damaged files aside, so that the rest can be read."""


def main(arguments: Sequence[str] | None = None, prog: str = "gradflow check") -> int:
    """Run the command; return 0, 1 after an error, 3 if a check failed, or 130 if interrupted."""
    return run_command(
        lambda: _work(tyro.cli(Options, prog=prog, args=arguments)),
        lambda: "interrupted: the check is not finished",
    )


def _work(options: Options) -> int:
    if options.repair and not options.files:
        raise ConfigurationError("--repair mends files: use it with --files")
    if options.files:
        if options.fail_on is not None or options.fail_on_unknown:
            raise ConfigurationError("--files checks files alone: leave --fail-on out")
        from gradflow.runs.__main__ import check_files  # noqa: PLC0415
        from gradflow.runs.reading.locating import RUNS_FOLDER, find_folder  # noqa: PLC0415

        return check_files(find_folder(options.folder, RUNS_FOLDER), repaired=options.repair)
    from gradflow.findings.checks import check  # noqa: PLC0415

    for one in check(options.folder, options.fail_on, fail_on_unknown=options.fail_on_unknown):
        print_item(sys.stdout, *_lines(one))
    return 0


def _lines(one: "Check") -> list[str]:
    """What was found, or why nothing was; then what to do, or what to record."""
    if one.open:
        steps = [f"to do: {step}" for step in dict.fromkeys(one.next_steps) if step]
        return [f"{one.name}: can't tell. {' '.join(one.open)}", *steps]
    if one.silent:
        by_reason: dict[str, list[str]] = {}
        for network, reason in zip(one.silent, one.why_silent, strict=True):
            by_reason.setdefault(reason or "nothing that shows it was recorded", []).append(network)
        said = "; ".join(f"{', '.join(names)} ({why})" for why, names in by_reason.items())
        return [f"{one.name}: not asked of {said}", *([f"to ask: {one.to_ask}"] * bool(one.to_ask))]
    return [f"{one.name}: no" if one.fails_if == "supported" else f"{one.name}: not {one.fails_if}"]
