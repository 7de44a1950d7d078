"""The command `python -m gradflow.report`: explains recorded runs as HTML and as PDF.

The reports are written into the folder of the experiment or run that they explain.
"""

import json
import os
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gradflow.errors import ConfigurationError, GradflowError, RunError
from gradflow.runs.files import EXPERIMENT_FILE, RUN_FILE, write_whole

if TYPE_CHECKING:
    from reports.document import Document

FORMATS = ("html", "pdf")
_COLUMNS = 80


@dataclass(frozen=True)
class Options:
    """Explain recorded runs: write report.html and report.pdf into the folder of each."""

    folders: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="[FOLDER ...]", help_behavior_hint=""),
    ] = ()
    """Experiments or single runs; without any, the newest experiment in the runs folder."""

    format: Annotated[str, tyro.conf.arg(metavar="FORMATS")] = "html,pdf"
    """What to write: html, pdf, or both with a comma between them."""

    runs_folder: Path = Path("runs")
    """Where to look for the newest experiment."""

    watch: bool = False
    """Rebuild the report of one experiment or run as its epochs land, until it has ended, and serve
    it to a page in the browser that follows."""

    port: int = 0
    """Port of this machine on which `--watch` serves the page; 0 takes a free one."""

    open: bool = False
    """Open the page that `--watch` serves in the browser."""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the reports that `argv` asks for; the exit code: 0, 1 for an error, 130 interrupted."""
    options = tyro.cli(Options, args=argv, prog="python -m gradflow.report")
    # A console that cannot show a letter shows a question mark in its place.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    try:
        formats = parse_formats(options.format)
        check_packages()
        folders = options.folders or (newest_experiment(options.runs_folder),)
        if options.watch:
            return _watch(folders, formats, options)
        return max(_report_or_complain(folder, formats) for folder in folders)
    except GradflowError as error:
        return _complain(error)
    except BrokenPipeError:
        # Who reads the output, `head` say, has seen enough; the flush at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted: reports not listed above were not written", file=sys.stderr)
        return 130


def parse_formats(text: str) -> tuple[str, ...]:
    """The formats named in `text`, each once.

    Raises `ConfigurationError` where there is none, or one is unknown.
    """
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        found = f"the format {unknown[0]!r} is unknown" if unknown else "no format is named"
        raise ConfigurationError(f"{found}: choose from {', '.join(FORMATS)} with --format")
    return tuple(dict.fromkeys(names))


def newest_experiment(runs_folder: Path) -> Path:
    """The experiment or single run that was created last, of those directly in `runs_folder`.

    Raises `RunError` where there is none.
    """
    found: list[tuple[datetime, str, Path]] = []
    for name in (EXPERIMENT_FILE, RUN_FILE):
        for path in runs_folder.glob(f"*/{name}"):
            created = _created(path)
            if created is not None:
                found.append((created, path.parent.name, path.parent))
    if not found:
        raise RunError(
            f"there is no experiment in {runs_folder}: record one with "
            "`python -m gradflow.train_and_trace`, or name the folder of one"
        )
    return max(found)[2]


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


def write_reports(folder: Path, formats: Sequence[str]) -> None:
    """Analyse what is in `folder`, write its reports there, then print the answer.

    Raises `RunError` where the folder holds no run, a damaged one, or cannot be written.
    """
    document, written = _make_reports(folder, formats)
    print_answer(document)
    print(*written, sep="\n")


def _make_reports(folder: Path, formats: Sequence[str]) -> tuple["Document", list[str]]:
    """Analyse what is in `folder` and write its reports; the document, and a line for each file."""
    # Loaded here: `--help` and a wrong option need none of it.
    import matplotlib  # noqa: PLC0415

    matplotlib.use("Agg")  # no window is ever opened
    from analyses.registry import run_all  # noqa: PLC0415
    from gradflow.runs.reader import open_experiment  # noqa: PLC0415
    from reports.document import build_document  # noqa: PLC0415

    experiment = open_experiment(folder)
    document = build_document(experiment, run_all(experiment))
    written = []
    for name in formats:
        start = time.perf_counter()
        path = folder / f"report.{name}"
        content = _renderer(name)(document)
        try:
            write_whole(path, partial(_write, content))
        except OSError as error:
            raise RunError(f"the report {path} cannot be written: {error.strerror}") from error
        seconds = time.perf_counter() - start
        written.append(f"{path} ({len(content) / 1e6:.1f} MB, {seconds:.1f} s)")
    return document, written


def _watch(folders: Sequence[Path], formats: Sequence[str], options: Options) -> int:
    from gradflow.watching import watch  # noqa: PLC0415

    if len(folders) > 1:
        raise ConfigurationError(
            f"--watch follows one experiment or run, and {len(folders)} are named: name one"
        )
    (folder,) = folders
    return watch(
        folder,
        lambda: _make_reports(folder, formats)[0],
        port=options.port,
        opened=options.open,
    )


def print_answer(document: "Document") -> None:
    """Print the question, what must be known first, and one line for each verdict."""
    for text in (document.question, *document.warnings, document.lead):
        print(textwrap.fill(text, _COLUMNS))
    for line in (line for card in document.verdicts for line in card.lines):
        verdict = f"{line.sign} {line.verdict.value:<13}"
        statement = f"{line.network}: {line.hypothesis}"
        room = _COLUMNS - len(verdict)
        print(verdict + textwrap.shorten(statement, room, placeholder=" ..."))


def _place_of(name: str) -> Path | None:
    """The folder of the package, or the file of the module, that `import` would load."""
    spec = find_spec(name)
    places = [*(spec.submodule_search_locations or ()), spec.origin] if spec else []
    return next((Path(place).resolve() for place in places if place), None)


def _renderer(name: str) -> Callable[["Document"], bytes]:
    if name == "html":
        from reports.html import render_html  # noqa: PLC0415

        return render_html
    from reports.pdf import render_pdf  # noqa: PLC0415

    return render_pdf


def _report_or_complain(folder: Path, formats: Sequence[str]) -> int:
    # One folder that cannot be explained must not cost the reader the others.
    try:
        write_reports(folder, formats)
    except GradflowError as error:
        return _complain(error)
    return 0


def _complain(error: GradflowError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 1


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _created(path: Path) -> datetime | None:
    try:
        created = datetime.fromisoformat(json.loads(path.read_text(encoding="utf-8"))["created"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # what is not a description of gradflow's is not a candidate
    return created if created.tzinfo else created.replace(tzinfo=UTC)


if __name__ == "__main__":
    sys.exit(main())
