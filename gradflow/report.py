"""Writes reports on recorded runs: the command `python -m gradflow.report`, and a function.

A report is written into the folder of its experiment or run, a comparison into its own folder. From
Python the module itself is called; `gradflow.findings.reporting.report` describes its arguments:

    gradflow.report("runs/mine", formats="html")
"""

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from gradflow.command_line.exit_codes import EXIT_ERROR, print_error, run_command
from gradflow.command_line.packages import check_packages, leave_working_folder
from gradflow.errors import ConfigurationError, GradflowError
from gradflow.runs.format.limits import require_valid_path
from gradflow.runs.reading.locating import (
    RUNS_FOLDER,
    comparison_name,
    find_folder,
    newest_experiment,
)

if TYPE_CHECKING:
    from analyses.result import Length
    from gradflow.findings.answers import Answers
    from gradflow.findings.checks import Checks
    from gradflow.findings.reporting import WrittenReport
    from gradflow.findings.sources import Source
    from gradflow.runs.reading.run import Experiment
    from reports.building import Written
    from reports.elements import Document
    from reports.formats import Format, Report

DEFAULT_FORMATS = "html,pdf"
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
    programs)."""

    only: Annotated[str, tyro.conf.arg(metavar="KEY[,KEY]", help_behavior_hint="")] = ""
    """Run only these analyses. With --format they are written as report-KEY; without it their
    sections are printed and nothing is written."""

    each: Annotated[bool, tyro.conf.FlagCreatePairsOff, _QUIET] = False
    """Write one report for each folder instead of a comparison."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")] = None
    """Folder to write into instead of the folder of the runs."""

    length: Annotated[
        Literal["summary", "standard", "full"] | None,
        tyro.conf.arg(help_behavior_hint="(default: standard; full with --only)"),
    ] = None
    """How much is shown: two pages, what was found with the figures that show it, or all there is.
    JSON has everything in any case."""

    paper: Literal["a4", "letter"] = "a4"
    """Paper of the PDF."""

    language: Annotated[str, tyro.conf.arg(metavar="CODE")] = "en"
    """Language of the report: en (English) or id (Indonesian: the first page, headings, verdicts
    and glossary). JSON is English in any case."""

    open: Annotated[bool, tyro.conf.FlagCreatePairsOff, _QUIET] = False
    """Open the page in the browser when it is written or served."""

    fail_on: Annotated[str | None, tyro.conf.arg(metavar="NAME[,NAME]", help_behavior_hint="")] = (
        None
    )
    """Exit with 3, after the report is written, if a network has one of these conditions:
    non-finite, inputs, frozen-statistics, unused, disconnected, not-updated, accumulating,
    overshooting, vanishing, exploding, vanishing-in-time, exploding-in-time, shattered, dead,
    saturated, clipped, lost-to-rounding, underflow, stalled, collapsed, spiking, dominated,
    conflicting, not-learning, overfitting, stale-statistics, noisy. Other findings are named with
    the verdict that fails: healthy=contradicted."""

    fail_on_unknown: Annotated[bool, tyro.conf.FlagCreatePairsOff, _QUIET] = False
    """With --fail-on: exit with 3 also if one of them cannot be told or was not recorded."""

    watch: Annotated[bool, tyro.conf.FlagCreatePairsOff, _QUIET] = False
    """Rebuild the report of one experiment or run after each epoch until the training ends, and
    serve it as a page that updates itself."""

    port: int = 0
    """Port on this machine on which --watch serves the page; 0 takes a free port."""

    runs_folder: Path = RUNS_FOLDER
    """Folder in which experiments are found by name, and into which comparisons are written."""


def main(argv: Sequence[str] | None = None, prog: str = "python -m gradflow.report") -> int:
    """Run the command with `argv`.

    Returns 0, 1 after an error, 3 if a check of --fail-on failed, or 130 after an interruption.
    """

    def work() -> int:
        options = tyro.cli(Options, args=argv, prog=prog)
        check_packages()
        return run(options)

    return run_command(work, lambda: "interrupted: reports not listed above were not written")


def run(options: Options) -> int:
    """Write the reports that `options` ask for, and return the exit code.

    It is 1 if a report on one folder failed, else 3 if a check of --fail-on did, else 0.

    Raises `GradflowError` if there is nothing to report on, or if a comparison failed.
    """
    checks = _checks(options)
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
        compare(folders, formats, options, only, checks)
        return 0
    codes = []
    for place, named in enumerate(folders, start=1):
        try:
            folder = find_folder(named, options.runs_folder)
            out = _own_place(options.out, folder, place) if len(folders) > 1 else options.out
            write_reports(
                folder,
                formats,
                only,
                out,
                options.paper,
                length=_length(options.length, only),
                language=options.language,
                open_page=options.open,
                checks=checks,
            )
        except GradflowError as error:
            # A folder that fails must not prevent the reports on the others.
            codes.append(print_error(error))
    return EXIT_ERROR if EXIT_ERROR in codes else max(codes, default=0)


def write_reports(  # noqa: PLR0913 - the options of the command
    folder: Path,
    formats: Sequence["Format"],
    only: Sequence[str] = (),
    out: Path | None = None,
    paper: str = "a4",
    *,
    length: "Length | None" = None,
    language: str = "en",
    open_page: bool = False,
    checks: "Checks | None" = None,
) -> list["Written"]:
    """Analyse the runs in `folder`, write the reports to `out` or `folder`, and print the answer.

    Without `formats` nothing is written and the sections are printed. `length` says how much is
    shown, by default the standard report; `language` is that of the report.

    Raises `RunError` if the folder has no run or a damaged one, or if the reports cannot be
    written, `ConfigurationError` if `only` names an unknown analysis, and, when all is written,
    `CheckFailedError` if one of `checks` fails.
    """
    # Imported here: `--help` and a wrong option do not need it.
    from gradflow.runs.reading.run import open_experiment  # noqa: PLC0415

    experiment = open_experiment(folder)
    report, written = _write(
        experiment, formats, only, out or folder, paper, length or _length(None, only), language
    )
    _open_page(written, open_page)
    if checks:
        checks.require(report.experiment, report.outcomes)
    return written


def compare(
    named: Sequence[Path],
    formats: Sequence["Format"],
    options: Options,
    only: Sequence[str],
    checks: "Checks | None" = None,
) -> list["Written"]:
    """Compare all `named` folders in one report.

    Raises what `write_reports` raises, and `ConfigurationError` if a run is in two folders.
    """
    from analyses.comparison.combination import combine  # noqa: PLC0415
    from gradflow.runs.reading.run import open_experiment  # noqa: PLC0415

    folders = [find_folder(one, options.runs_folder) for one in named]
    out = options.out or options.runs_folder / comparison_name(folders)
    experiment = combine([open_experiment(folder) for folder in folders], out)
    length = _length(options.length, only)
    report, written = _write(
        experiment, formats, only, out, options.paper, length, options.language
    )
    _open_page(written, options.open)
    if checks:
        checks.require(report.experiment, report.outcomes)
    return written


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
        return rebuilt(
            folder,
            formats,
            only,
            options.out or folder,
            options.paper,
            _length(options.length, only),
            options.language,
        )

    return watch(folder, rebuild, port=options.port, open_browser=options.open)


def rebuilt(
    folder: Path,
    formats: Sequence["Format"],
    only: Sequence[str],
    out: Path,
    paper: str,
    length: "Length | None" = None,
    language: str = "en",
) -> "Document":
    """Write the report on the present runs in `folder` without printing; return its document.

    Raises what `write_reports` raises.
    """
    from gradflow.runs.reading.run import open_experiment  # noqa: PLC0415
    from reports.building import make_report, report_name, write_report  # noqa: PLC0415

    length = length or _length(None, only)
    report = make_report(
        open_experiment(folder), only, paper, out, length=length, language=language
    )
    write_report(report, formats, out, report_name(only))
    return report.shown


def _write(
    experiment: "Experiment",
    formats: Sequence["Format"],
    only: Sequence[str],
    out: Path,
    paper: str,
    length: "Length",
    language: str,
) -> tuple["Report", list["Written"]]:
    from reports.building import make_report, report_name, write_report  # noqa: PLC0415
    from reports.html.vega import begin  # noqa: PLC0415
    from reports.terminal import answer_text, print_text, sections_text  # noqa: PLC0415

    with _small_pages():
        if any(one.name == "html" for one in formats):
            begin()
        report = make_report(
            experiment, only, paper, out, processes=None, length=length, language=language
        )
        if not formats:
            print_text(sections_text(report.shown))
            return report, []
        written = write_report(report, formats, out, report_name(only))
    print_text(answer_text(report.shown))
    print(*written, sep="\n")
    return report, written


@contextmanager
def _small_pages() -> Iterator[None]:
    """Let Arrow take its memory from the system's own allocator.

    By default it takes huge pages, gives them back and takes them again, table by table: on a
    virtual machine the kernel then fills pages for a tenth of the time of a report.
    """
    import pyarrow  # noqa: PLC0415 - slow to load

    before = pyarrow.default_memory_pool()
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())
    try:
        yield
    finally:
        pyarrow.set_memory_pool(before)


def _checks(options: Options) -> "Checks | None":
    if options.fail_on is None:
        if options.fail_on_unknown:
            raise ConfigurationError("--fail-on-unknown goes with --fail-on: say what to check")
        return None
    if options.watch:
        raise ConfigurationError("--watch goes on until the training ends: use --fail-on after it")
    from gradflow.findings.checks import read_checks  # noqa: PLC0415

    return read_checks(options.fail_on, fail_on_unknown=options.fail_on_unknown)


def _length(named: str | None, only: Sequence[str]) -> "Length":
    """The length of the report: whoever names analyses wants all that these have to say."""
    from reports.document.selection import DEFAULT_LENGTH, parse_length  # noqa: PLC0415

    return parse_length(named or ("full" if only else DEFAULT_LENGTH))


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


class CallableModule(ModuleType):
    """The module `gradflow.report`, which is a function as well."""

    def __call__(
        self,
        runs: "Source | Answers",
        *,
        formats: str | Collection[str] = DEFAULT_FORMATS,
        out: str | Path | None = None,
        only: str | Collection[str] = (),
        paper: str = "a4",
        length: str | None = None,
        language: str = "en",
    ) -> "WrittenReport":
        """Write the report of `runs`: see `gradflow.findings.reporting.report`."""
        from gradflow.findings.reporting import report  # noqa: PLC0415

        return report(
            runs,
            formats=formats,
            out=out,
            only=only,
            paper=paper,
            length=length,
            language=language,
        )


# The import of this module makes it the attribute `report` of the package, in place of any function
# of that name. The module can be called, so that `gradflow.report(...)` always means the same.
if __name__ == "gradflow.report":
    sys.modules[__name__].__class__ = CallableModule

if __name__ == "__main__":
    leave_working_folder()
    sys.exit(main())
