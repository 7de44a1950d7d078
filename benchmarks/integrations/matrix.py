"""Runs what is known of each trainer's library, and prints which of it works.

    python benchmarks/integrations/matrix.py                     # all that are installed
    python benchmarks/integrations/matrix.py Lightning fastai
    python benchmarks/integrations/matrix.py --write             # into docs/howto/integrations.md

Of each library it runs the program on the page and the tests of `libraries.py`. `--write` replaces
the rows of installed libraries, unless the page has one of a newer version. It takes some minutes.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from xml.etree import ElementTree

from libraries import COLUMNS, LIBRARIES, PAGE, ROOT, TESTS, Library

EXAMPLES = ROOT / "tests" / "examples" / "test_integrations.py"
HEAD = ("library", "tried", "from", "lines", "program", *COLUMNS)
START, END = "<!-- matrix: begins -->\n", "<!-- matrix: ends -->\n"


def installed(library: Library) -> str | None:
    """The version that is installed, or None."""
    try:
        return version(library.distribution)
    except PackageNotFoundError:
        return None


def outcomes(library: Library) -> dict[str, str]:
    """How each test of the library ended, "passed", "skipped" or "failed", by `file::name`."""
    files = {one.partition("::")[0] for tests in library.tests.values() for one in tests}
    named = {one.split("::", 1)[1] for tests in library.tests.values() for one in tests}
    chosen = " or ".join(
        f"({one.replace('::', ' and ')})" for one in [*sorted(named), f"record::{library.section}"]
    )
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        paths = [*(str(TESTS / f"{file}.py") for file in sorted(files)), str(EXAMPLES)]
        options = ["-q", "-p", "no:cacheprovider", "-W", "default", f"--junitxml={report}"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, "-k", chosen, *paths],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in (0, 1):
            raise SystemExit(f"{library.name}: pytest ended with {done.returncode}\n{done.stdout}")
        found = reported(report)
    print(f"{library.name}: {done.stdout.strip().splitlines()[-1]}", file=sys.stderr)
    return found


def reported(report: Path) -> dict[str, str]:
    """How each test in a report of pytest ended, by `file::name`."""
    found: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        kinds = {child.tag for child in case}
        failed = kinds & {"failure", "error"} or found.get(name) == "failed"
        found[name] = "failed" if failed else "skipped" if "skipped" in kinds else "passed"
    return found


def shown(tests: tuple[str, ...], ended: dict[str, str]) -> str:
    """The cell for `tests`: "yes", "fails", "not run", or empty if there are none."""
    results: list[str] = []
    for one in tests:
        file, function, part = (*one.split("::"), "")[:3]
        results += [
            how
            for name, how in ended.items()
            if name.partition("[")[0] == f"{file}::{function}" and part in name
        ] or ["skipped"]
    if not results:
        return ""
    return "fails" if "failed" in results else "not run" if "skipped" in results else "yes"


def row(library: Library) -> list[str]:
    """The row of a library, run now; its cells are empty if it is not installed."""
    found = installed(library)
    first = [library.name, found or "not installed", library.oldest, str(library.lines)]
    if found is None:
        return first + [""] * (1 + len(COLUMNS))
    ended = outcomes(library)
    program = (f"test_integrations::test_the_program_records_a_run::{library.section}",)
    cells = [shown(library.tests.get(column, ()), ended) for column in COLUMNS]
    return [*first, shown(program, ended), *cells]


def line(cells: list[str]) -> str:
    """A line of a table in Markdown."""
    return f"| {' | '.join(cells)} |\n".replace("|  |", "| |").replace("|  |", "| |")


def on_page(text: str) -> dict[str, list[str]]:
    """The rows of the page, by library."""
    table = text.partition(START)[2].partition(END)[0].splitlines()[2:]
    rows = [[cell.strip() for cell in one[1:-1].split("|")] for one in table]
    return {cells[0]: cells for cells in rows}


def written(text: str, rows: list[list[str]]) -> str:
    """The page's text with these rows, of those that are installed and not older."""
    before, after = text.partition(START)[0], text.partition(END)[2]
    known = on_page(text)
    for cells in rows:
        there = known.get(cells[0])
        older = there is not None and numbers(cells[1]) < numbers(there[1])
        if there is None or not older:
            known[cells[0]] = cells
    table = line(list(HEAD)) + line(["---"] * len(HEAD))
    table += "".join(line(known[one.name]) for one in LIBRARIES if one.name in known)
    return f"{before}{START}{table}{END}{after}"


def numbers(version: str) -> tuple[int, ...]:
    """The numbers in a version; none in "not installed"."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def main() -> None:
    """Print the table, and write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = {one.name.partition(",")[0]: one for one in LIBRARIES}
    parser.add_argument("libraries", nargs="*", metavar="LIBRARY", help=", ".join(names))
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(ROOT)}")
    given = parser.parse_args()
    unknown = set(given.libraries) - set(names)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))} is none of {', '.join(names)}")
    print(line(list(HEAD)) + line(["---"] * len(HEAD)), end="")
    rows = []
    for name in given.libraries or names:
        rows.append(row(names[name]))
        print(line(rows[-1]), end="", flush=True)
        if given.write:  # each at once, since all of them take minutes
            PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), rows[-1:]), encoding="utf-8")
    if any("fails" in cells for cells in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
