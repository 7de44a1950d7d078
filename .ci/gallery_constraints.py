"""Prints the installed environment as a constraints file with the hash of every archive.

    python .ci/gallery_constraints.py > docs/gallery/constraints.txt

To be run by the Python that wrote the reports of the gallery. What it prints is what the project
needs to run there, not the tools and tests that may be installed beside it. The archives are looked
up in pip's index, and only described by it: nothing is installed.
"""

import json
import platform
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def installed(requirements: list[str], extra: str, versions: dict[str, str]) -> None:
    """Add to `versions` what is installed of `requirements` and of all that these require.

    Of each, the requirements that apply on this machine are followed, and those of its `extra`.
    """
    for requirement in map(Requirement, requirements):
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        required = distribution(name).requires or []
        if name not in versions:
            # A build's own mark ("+cu132") is not part of the version by which an index knows it.
            versions[name] = distribution(name).version.partition("+")[0]
            installed(required, "", versions)
        for wanted in requirement.extras:
            installed(required, wanted, versions)


def archives(versions: dict[str, str]) -> dict[str, str]:
    """The sha256 of the archive that pip would install here for each name and version."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        pins = [f"{name}=={version}" for name, version in versions.items()]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps"]
        wheels = ["--ignore-installed", "--only-binary", ":all:", "--report", str(report)]
        subprocess.run([*pip, *wheels, *pins], check=True, stdout=sys.stderr)
        chosen = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {
        canonicalize_name(one["metadata"]["name"]): one["download_info"]["archive_info"]["hashes"][
            "sha256"
        ]
        for one in chosen
    }


if __name__ == "__main__":
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    versions: dict[str, str] = {}
    installed(project["dependencies"], "", versions)
    hashes = archives(versions)
    print("# The environment that wrote the reports of this folder, printed by")
    print("# `python .ci/gallery_constraints.py`.")
    print(f"# Python {platform.python_version()}, {sysconfig.get_platform()}.")
    for name in sorted(versions):
        print(f"{name}=={versions[name]} \\\n    --hash=sha256:{hashes[name]}")
