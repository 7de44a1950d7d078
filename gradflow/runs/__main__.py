"""The command `python -m gradflow.runs check`: finds and repairs damaged files of runs."""

import sys
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gradflow.command_line.exit_codes import run_command
from gradflow.runs.integrity.check import FileFinding, RunCheck, check_run, runs_in
from gradflow.runs.integrity.repair import repair

_LINE_WIDTH = 80
_NAME_WIDTH = 24
_MOST_NAMED = 100


@dataclass(frozen=True)
class Options:
    """Check every file of recorded runs: does it exist, and is it what was written?"""

    command: Annotated[Literal["check"], tyro.conf.Positional]
    """What to do."""

    folder: Annotated[Path, tyro.conf.Positional]
    """An experiment or a single run."""

    repair: bool = False
    """Move damaged files to the folder `damaged` of their run and remove the leftovers of
    interruptions, so that the rest can be read."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit status: 0 if nothing is damaged, 1 if a file is, 130 if interrupted."""
    return run_command(
        lambda: _work(tyro.cli(Options, prog="python -m gradflow.runs", args=arguments)),
        lambda: "interrupted: files set aside so far are in the folders called damaged",
    )


def _work(options: Options) -> int:
    return check_files(options.folder, repaired=options.repair)


def check_files(folder: Path, *, repaired: bool = False) -> int:
    """Print what is damaged among the files of `folder`; return 1 if a file is, else 0.

    If `repaired`, damaged files are set aside first.

    Raises `RunError` if the folder holds no run.
    """
    if repaired:
        for done in repair(folder):
            print(_line(folder, done.what, done.path, done.reason))
    folders, beside = runs_in(folder)
    checked = [check_run(folder) for folder in folders]
    findings = [*beside, *(finding for one in checked for finding in one.findings)]
    print("\n".join(_table(checked)))
    for finding in _shortened(findings):
        print(_line(folder, finding.kind, finding.path, finding.reason))
    for one in checked:
        for gap in one.gaps:
            print(_wrapped(f"gap: {_printable(one.folder.name)} has no rows of {gap}"))
    print(_wrapped(_verdict(checked, findings)))
    return int(any(finding.kind == "damaged" for finding in findings))


def _table(runs: Sequence[RunCheck]) -> list[str]:
    """One row a run."""
    lines = [f"{'run':{_NAME_WIDTH}} schema  {'status':11} files        MB        rows damaged"]
    for one in runs:
        version = str(one.description.get("schema_version", "-"))
        status = _printable(str(one.description.get("status", "-")))
        name = _cut(_printable(one.folder.resolve().name), _NAME_WIDTH)
        lines.append(
            f"{name:{_NAME_WIDTH}} {version:>6}  "
            f"{_cut(status, 11):11} {one.files:5} {one.size / 1e6:9.2f} {one.rows:11,} "
            f"{len(one.of_kind('damaged')):7}"
        )
    return lines


def _shortened(findings: Sequence[FileFinding]) -> Iterator[FileFinding]:
    """The first findings of each folder and reason: 100 damaged files, but only one harmless."""
    alike = defaultdict(list)
    for finding in findings:
        alike[finding.path.parent, finding.kind, finding.reason].append(finding)
    for same in alike.values():
        named = _MOST_NAMED if same[0].kind == "damaged" else 1
        yield from same[: named - 1]
        last, others = same[min(named, len(same)) - 1], len(same) - named
        if len(same) >= named:
            more = f", and {_count(others, 'more file')} beside it" if others else ""
            yield replace(last, reason=last.reason + more)


def _line(folder: Path, what: str, path: Path, reason: str) -> str:
    name = _printable(path.relative_to(folder).as_posix())
    return f"{what}: {name}\n{_wrapped('    ' + _printable(reason))}"


def _verdict(runs: Sequence[RunCheck], findings: Sequence[FileFinding]) -> str:
    damaged = [finding for finding in findings if finding.kind == "damaged"]
    files = sum(one.files for one in runs)
    where = f"{_count(files, 'file')} of {_count(len(runs), 'run')}"
    if damaged:
        return (
            f"Damaged: {_count(len(damaged), 'file')}, beside {where}; --repair sets damaged files "
            "aside, so that the rest can be read."
        )
    notes = f"; {_count(len(findings), 'finding')}, harmless" if findings else ""
    lost = sum(one.set_aside for one in runs)
    if lost:
        notes += f"; {_count(lost, 'file')} set aside by an earlier repair"
    unlisted = sum(not one.manifest.exists for one in runs)
    if unlisted:
        return (
            f"Readable: {where}; {_count(unlisted, 'run')} recorded before checksums were kept, so "
            f"only damage that stops reading is found{notes}."
        )
    return f"Undamaged: {where} as they were written{notes}."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _wrapped(text: str) -> str:
    return textwrap.fill(
        text,
        _LINE_WIDTH,
        break_long_words=False,
        break_on_hyphens=False,
        subsequent_indent="    ",
    )


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}~"


def _printable(text: str) -> str:
    """`text` with `?` for each character that could control a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


if __name__ == "__main__":
    sys.exit(main())
