"""The table of trainers on the page is the script's, as far as that is known without running it."""

import ast
import importlib
import re
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What else names the oldest version: the module of the callback, by library.
MODULES = {
    "Lightning": "lightning", "transformers": "transformers", "Ignite": "ignite",
    "fastai": "fastai", "Ultralytics": "ultralytics",
}  # fmt: skip


@pytest.fixture(scope="module")
def matrix():
    names = ("matrix", "libraries")
    sys.path.insert(0, str(ROOT / "benchmarks" / "integrations"))
    try:
        yield importlib.import_module("matrix")
    finally:
        sys.path.pop(0)
        for name in names:
            sys.modules.pop(name, None)


@pytest.fixture
def table(matrix):
    return matrix.on_page(matrix.PAGE.read_text(encoding="utf-8"))


def test_the_page_has_a_row_for_each_library_with_what_its_program_needs(matrix, table):
    assert list(table) == [one.name for one in matrix.LIBRARIES]
    for one in matrix.LIBRARIES:
        cells = dict(zip(matrix.HEAD, table[one.name], strict=True))
        assert cells["from"] == one.oldest
        assert int(cells["lines"]) == one.lines <= 4
        assert matrix.numbers(cells["tried"]) >= matrix.numbers(one.oldest)
        assert cells["program"] == "yes"
        # What has a test has passed it, and what has none is not claimed.
        found = {name for name in matrix.COLUMNS if cells[name] == "yes"}
        assert found == set(one.tests)
        assert {cells[name] for name in matrix.COLUMNS} <= {"yes", ""}


def test_each_test_that_is_named_is_there(matrix):
    for one in matrix.LIBRARIES:
        for name in (name for tests in one.tests.values() for name in tests):
            file, function = name.split("::")[:2]
            source = (matrix.TESTS / f"{file}.py").read_text(encoding="utf-8")
            functions = {
                node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)
            }
            assert function in functions, name


def test_the_oldest_versions_are_those_that_the_callbacks_take(matrix):
    oldest = {one.name: one.oldest for one in matrix.LIBRARIES}
    for name, module in MODULES.items():
        source = (ROOT / "gradflow" / "integrations" / f"{module}.py").read_text(encoding="utf-8")
        assert re.findall(r'"(\d+\.\d+\.\d+)"', source) == [oldest[name]]


def test_a_cell_says_how_its_tests_ended(matrix):
    ended = {"f::a[x]": "passed", "f::a[y]": "failed", "f::b": "skipped", "f::c": "passed"}
    for tests, wanted in (
        ((), ""), (("f::c",), "yes"), (("f::a::x",), "yes"), (("f::a",), "fails"),
        (("f::c", "f::b"), "not run"), (("f::gone",), "not run"),
    ):  # fmt: skip
        assert matrix.shown(tests, ended) == wanted


def test_a_library_that_is_not_installed_says_so_and_keeps_its_row(matrix, table, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(matrix, "version", missing)
    rows = [matrix.row(one) for one in matrix.LIBRARIES]
    assert {cells[1] for cells in rows} == {"not installed"}
    text = matrix.PAGE.read_text(encoding="utf-8")
    assert matrix.written(text, rows) == text


def test_a_row_is_replaced_unless_the_page_has_a_newer_version(matrix, table):
    text = matrix.PAGE.read_text(encoding="utf-8")
    name = matrix.LIBRARIES[0].name
    for version, replaced in (("0.1", False), ("999.0", True)):
        cells = [name, version, *table[name][2:-1], "fails"]
        found = matrix.on_page(matrix.written(text, [cells]))
        assert (found[name] == cells) is replaced
        assert {k: v for k, v in found.items() if k != name} == {
            k: v for k, v in table.items() if k != name
        }
