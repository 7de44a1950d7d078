"""What the code imports is declared; the oldest versions and the gallery's are written down."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OURS = {"gradflow", "analyses", "reports"}
# Comes with torch where torch can use it; without it the tracer computes the same on another way.
OPTIONAL = {"triton"}


def imported(path: Path) -> set[str]:
    """The packages that a file imports, whether at its head or within a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    packages = {name.partition(".")[0] for name in names}
    return packages - set(sys.stdlib_module_names) - OURS - OPTIONAL


def normalized(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name.group()).lower()


# Reads the records of every installed distribution: once is enough.
providers_of_packages = cache(packages_distributions)


def undeclared(packages: set[str], requirements: list[str]) -> set[str]:
    """Those of `packages` that none of the distributions in `requirements` brings."""
    declared = {normalized(requirement) for requirement in requirements}
    providers = providers_of_packages()
    return {
        package
        for package in packages
        if declared.isdisjoint(map(normalized, providers.get(package, [package])))
    }


@pytest.mark.parametrize("folder", sorted(OURS))
def test_everything_that_the_packages_import_is_declared(folder):
    packages = set().union(*map(imported, (ROOT / folder).rglob("*.py")))
    assert packages
    assert undeclared(packages, PROJECT["dependencies"]) == set()


@pytest.mark.parametrize("folder", ["tests", "examples"])
def test_everything_that_tests_and_examples_import_is_declared(folder):
    packages = set().union(*map(imported, (ROOT / folder).rglob("*.py")))
    own = {path.stem for name in (folder, "benchmarks") for path in (ROOT / name).rglob("*.py")}
    declared = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]
    assert undeclared(packages - own, declared) == set()


def test_a_package_that_comes_with_another_counts_as_undeclared():
    without = [one for one in PROJECT["dependencies"] if not one.startswith("numpy")]
    assert undeclared({"numpy", "pandas", "sklearn"}, without) == {"numpy"}


def test_the_oldest_allowed_versions_are_the_lower_bounds():
    printed = subprocess.run(
        [sys.executable, ROOT / ".ci" / "oldest.py"], capture_output=True, text=True, check=True
    ).stdout
    assert (ROOT / ".ci" / "constraints-oldest.txt").read_text(encoding="utf-8") == printed
    declared = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]
    bounds = [re.sub(r",<.*", "", requirement).replace(">=", "==") for requirement in declared]
    written = [line for line in printed.splitlines() if not line.startswith("#")]
    assert sorted(bounds) == sorted(written)


def test_every_archive_of_the_gallery_has_a_hash():
    text = (ROOT / "docs" / "gallery" / "constraints.txt").read_text(encoding="utf-8")
    pins = [line for line in text.replace(" \\\n", "").splitlines() if not line.startswith("#")]
    assert len(pins) > len(PROJECT["dependencies"])
    with_hash = re.compile(r"\S+==\S+ {4}--hash=sha256:[0-9a-f]{64}")
    assert [pin for pin in pins if not with_hash.fullmatch(pin)] == []
    names = {normalized(pin) for pin in pins}
    assert {normalized(one) for one in PROJECT["dependencies"]} <= names
