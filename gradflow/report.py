"""The command `python -m gradflow.report`: writes reports on recorded runs, or compares them.

A report is written into the folder of its experiment or run, a comparison into its own folder.
"""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from gradflow.command_line.exit_codes import print_error, run_command
from gradflow.errors import ConfigurationError, GradflowError
from gradflow.runs.format.limits import require_valid_path
from gradflow.runs.reading.locating import RUNS_FOLDER, find_folder, newest_experiment

if TYPE_CHECKING:
    from gradflow.runs.reading.run import Experiment
    from reports.building import Written
    from reports.elements import Document
    from reports.formats import Format

DEFAULT_FORMATS = "html,pdf"
_LONGEST_NAME = 80
_FOLDERS = tyro.conf.arg(metavar="[FOLDER ...]", help_behavior_hint="")
_QUIET = tyro.conf.arg(help_behavior_hint="")


@dataclass(frozen=True)
class Options:
    """Explain recorded runs: write report.html and report.pdf into their folder.

    Several folders are compared in one report, which gets its own folder.
    """

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional, _FOLDERS] = ()
    """Experiments or single runs, given by path or by name in the runs folder; the default is the
    newest experiment in the runs folder."""

    format: Annotated[
        str | None,
        tyro.conf.arg(metavar="FORMATS", help_behavior_hint=f"(default: {DEFAULT_FORMATS})"),
    ] = None
    """Formats to write, separated by commas: html, pdf, md (for a pull request), json (for other
    programs), txt (plain text)."""

    only: Annotated[str, tyro.conf.arg(metavar="KEY[,KEY]", help_behavior_hint="")] = ""
    """Run only these analyses. With --format they are written as report-KEY; without it their
    sections are printed and nothing is written."""

    each: Annotated[bool, tyro.conf.FlagCreatePairsOff, _QUIET] = False
    """Write one report for each folder instead of a comparison."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")] = None
    """Folder to write into instead of the folder of the runs."""

    paper: Literal["a4", "letter"] = "a4"
    """Paper of the PDF."""

    open: Annotated[bool, tyro.conf.FlagCreatePairsOff, _QUIET] = False
    """Open the page in the browser when it is written or served."""

    watch: Annotated[bool, tyro.conf.FlagCreatePairsOff, _QUIET] = False
    """Rebuild the report of one experiment or run after each epoch until the training ends, and
    serve it as a page that updates itself."""

    port: int = 0
    """Port on this machine on which --watch serves the page; 0 takes a free port."""

    runs_folder: Path = RUNS_FOLDER
    """Folder in which experiments are found by name, and into which comparisons are written."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv`; return 0, 1 after an error, or 130 after an interruption."""

    def work() -> int:
        options = tyro.cli(Options, args=argv, prog="python -m gradflow.report")
        check_packages()
        return report(options)

    return run_command(work, lambda: "interrupted: reports not listed above were not written")


def report(options: Options) -> int:
    """Write the reports that `options` ask for; return 0, or 1 if one of several reports failed.

    Raises `GradflowError` if there is nothing to report on, or if the only report failed.
    """
    formats = _formats(options)
    only = tuple(dict.fromkeys(key.strip() for key in options.only.split(",") if key.strip()))
    if options.only and not only:
        raise ConfigurationError("--only names no analysis: name one, such as gradient_profile")
    folders = options.folders or (newest_experiment(options.runs_folder),)
    for folder in (*folders, options.runs_folder):
        require_valid_path(folder)
    _require_each_once(folders, options.runs_folder)
    if options.watch:
        return _watch(folders, formats, options, only)
    if len(folders) > 1 and not options.each:
        compare(folders, formats, options, only)
        return 0
    codes = []
    for place, named in enumerate(folders, start=1):
        try:
            folder = find_folder(named, options.runs_folder)
            out = _own_place(options.out, folder, place) if len(folders) > 1 else options.out
            _open_page(write_reports(folder, formats, only, out, options.paper), options.open)
        except GradflowError as error:
            # A folder that fails must not prevent the reports on the others.
            codes.append(print_error(error))
    return max(codes, default=0)


def write_reports(
    folder: Path,
    formats: Sequence["Format"],
    only: Sequence[str] = (),
    out: Path | None = None,
    paper: str = "a4",
) -> list["Written"]:
    """Analyse the runs in `folder`, write the reports to `out` or `folder`, and print the answer.

    Without `formats` nothing is written and the sections are printed.

    Raises `RunError` if the folder has no run or a damaged one, or if the reports cannot be
    written, and `ConfigurationError` if `only` names an unknown analysis.
    """
    # Imported here: `--help` and a wrong option do not need it.
    from gradflow.runs.reading.run import open_experiment  # noqa: PLC0415

    return _write(open_experiment(folder), formats, only, out or folder, paper)


def compare(
    named: Sequence[Path], formats: Sequence["Format"], options: Options, only: Sequence[str]
) -> list["Written"]:
    """Compare all `named` folders in one report.

    Raises what `write_reports` raises, and `ConfigurationError` if a run is in two folders.
    """
    from analyses.comparison.combination import combine  # noqa: PLC0415
    from gradflow.runs.reading.run import open_experiment  # noqa: PLC0415

    folders = [find_folder(one, options.runs_folder) for one in named]
    out = options.out or options.runs_folder / comparison_name(folders)
    experiment = combine([open_experiment(folder) for folder in folders], out)
    written = _write(experiment, formats, only, out, options.paper)
    _open_page(written, options.open)
    return written


def comparison_name(folders: Sequence[Path]) -> str:
    """The folder name of a comparison, e.g. `comparison-A-B`; a long name is shortened."""
    names = [folder.resolve().name for folder in folders]
    name = "-".join(["comparison", *names])
    if len(name) <= _LONGEST_NAME:
        return name
    # A hash stands for the rest, so that comparisons with the same beginning do not collide.
    digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:8]
    return f"{name[: _LONGEST_NAME - 9]}-{digest}"


def _watch(
    folders: Sequence[Path], formats: Sequence["Format"], options: Options, only: Sequence[str]
) -> int:
    from gradflow.live.watch import watch  # noqa: PLC0415

    if len(folders) > 1:
        raise ConfigurationError(
            f"--watch follows one experiment or run, and {len(folders)} are named: name one"
        )
    (named,) = folders
    known = named.exists() or (options.runs_folder / named).exists()
    # A training that has not begun has no folder yet.
    folder = find_folder(named, options.runs_folder) if known else named

    def rebuild() -> "Document":
        return rebuilt(folder, formats, only, options.out or folder, options.paper)

    return watch(folder, rebuild, port=options.port, open_browser=options.open)


def rebuilt(
    folder: Path,
    formats: Sequence["Format"],
    only: Sequence[str],
    out: Path,
    paper: str,
) -> "Document":
    """Write the report on the present runs in `folder` without printing; return its document.

    Raises what `write_reports` raises.
    """
    from gradflow.runs.reading.run import open_experiment  # noqa: PLC0415
    from reports.building import make_report, report_name, write_report  # noqa: PLC0415

    report = make_report(open_experiment(folder), only, paper)
    write_report(report, formats, out, report_name(only))
    return report.document


def check_packages() -> None:
    """Make sure that `analyses` and `reports` are gradflow's own, without importing them.

    Raises `ConfigurationError`, naming both folders, where another package is found first.
    """
    home = Path(__file__).resolve().parent.parent
    for name in ("analyses", "reports"):
        place = _place_of(name)
        if place != home / name:
            raise ConfigurationError(
                f"the package {name!r} was found in {place or 'no folder'}, but gradflow's own is "
                f"in {home / name}: run the command from another folder, or rename the other one"
            )


def leave_working_folder() -> None:
    """Take the working folder off the path, on which `python -m` puts it first.

    A package called `analyses` or `reports` there would be found in place of gradflow's own.
    """
    home = Path(__file__).resolve().parent.parent
    if sys.path and Path(sys.path[0] or ".").resolve() == Path.cwd().resolve() != home:
        del sys.path[0]


def _write(
    experiment: "Experiment",
    formats: Sequence["Format"],
    only: Sequence[str],
    out: Path,
    paper: str,
) -> list["Written"]:
    from reports.building import make_report, report_name, write_report  # noqa: PLC0415
    from reports.html.vega import begin  # noqa: PLC0415
    from reports.terminal import answer_text, print_text, sections_text  # noqa: PLC0415

    if any(one.name == "html" for one in formats):
        begin()
    report = make_report(experiment, only, paper)
    if not formats:
        print_text(sections_text(report.document))
        return []
    written = write_report(report, formats, out, report_name(only))
    print_text(answer_text(report.document))
    print(*written, sep="\n")
    return written


def _formats(options: Options) -> tuple["Format", ...]:
    """The formats to write: none if --only is given without --format."""
    from reports.formats import parse_formats  # noqa: PLC0415

    if options.format is None and options.only:
        formats: tuple[Format, ...] = ()
    else:
        formats = parse_formats(DEFAULT_FORMATS if options.format is None else options.format)
    if options.open and "html" not in [one.name for one in formats]:
        raise ConfigurationError("--open shows the page: name html among the formats of --format")
    return formats


def _require_each_once(folders: Sequence[Path], runs_folder: Path) -> None:
    places = [(runs_folder / one if not one.exists() else one).resolve() for one in folders]
    for place, folder in zip(places, folders, strict=True):
        if places.count(place) > 1:
            raise ConfigurationError(f"{folder} is named twice: name each folder once")


def _own_place(out: Path | None, folder: Path, place: int) -> Path | None:
    """The folder inside `out` for the report of one of several folders; None without `out`."""
    return None if out is None else out / f"{place}-{folder.resolve().name}"


def _open_page(written: Sequence["Written"], wanted: bool) -> None:
    for one in written:
        if wanted and one.format.name == "html":
            import webbrowser  # noqa: PLC0415 - seldom needed

            address = one.path.resolve().as_uri()
            if not webbrowser.open(address):
                print(f"no browser was found: open {address} in one", file=sys.stderr)


def _place_of(name: str) -> Path | None:
    """The folder of the package, or the file of the module, that `import` would load."""
    spec = find_spec(name)
    places = [*(spec.submodule_search_locations or ()), spec.origin] if spec else []
    return next((Path(place).resolve() for place in places if place), None)


if __name__ == "__main__":
    leave_working_folder()
    sys.exit(main())
