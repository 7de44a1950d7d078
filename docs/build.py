"""Builds the site into docs/_build/html.

    python docs/build.py            # runs the gallery and the tutorials, and keeps what they gave
    python docs/build.py --quick    # runs none of them: all pages and links, in under a minute
    python docs/build.py --fresh    # forgets what was kept

Warnings are errors, in all of them.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

DOCS = Path(__file__).resolve().parent
BUILD = DOCS / "_build"


def main(arguments: list[str]) -> int:
    """Build the site and say how long it took."""
    unknown = set(arguments) - {"--quick", "--fresh"}
    if unknown:
        print(f"unknown: {' '.join(sorted(unknown))}\n\n{__doc__}", file=sys.stderr)
        return 2
    quick = "--quick" in arguments
    if "--fresh" in arguments:
        shutil.rmtree(BUILD, ignore_errors=True)
        shutil.rmtree(DOCS / "pictures", ignore_errors=True)
    began = time.monotonic()
    # A build without outputs must not be taken for one with them.
    name = "quick" if quick else "html"
    # Pages that are no more must not stay; what was read and run is kept elsewhere.
    shutil.rmtree(BUILD / name, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-j",
        # The quick one runs beside other checks, and takes a fifth less in one process.
        "1" if quick else "auto",
        "-b",
        "html",
    ]
    command += ["-d", str(BUILD / f"doctrees-{name}"), str(DOCS), str(BUILD / name)]
    # The models of the pages are so small that threads would wait for each other.
    environment = {"OMP_NUM_THREADS": "1"} | os.environ
    if quick:
        environment["GRADFLOW_DOCS_QUICK"] = "1"
    code = subprocess.run(command, env=environment, check=False).returncode
    pages = len(list((BUILD / name).rglob("*.html")))
    print(f"{pages} pages in {time.monotonic() - began:.0f} s: {BUILD / name}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
