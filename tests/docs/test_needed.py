"""A tutorial whose libraries are missing is not run, and says so."""

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = "---\nkernelspec:\n  name: python3\nneeds: [{}]\n---\n\n# A title\n\nA text.\n"


@pytest.fixture(scope="module")
def needed():
    path = DOCS / "site_pages" / "needed.py"
    spec = importlib.util.spec_from_file_location("needed", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_only_what_is_missing_is_named_below_the_title(needed):
    page = PAGE.format("json, nowhere_to_be_found")
    assert needed.missing(page) == ["nowhere_to_be_found"]
    before, note, after = needed.with_note(page).partition(":::{note}")
    assert before.endswith("# A title\n\n")
    assert "nowhere_to_be_found" in note + after
    assert "json" not in after
    assert after.endswith("A text.\n")


def test_a_page_that_can_be_run_stays_as_it_is(needed):
    for page in (PAGE.format("json"), "# A title\n\nneeds: [nowhere_to_be_found]\n"):
        assert needed.missing(page) == []
        assert needed.with_note(page) == page


def test_pages_that_cannot_be_run_are_left_out(needed, tmp_path):
    (tmp_path / "tutorials").mkdir()
    for name, library in (("whole", "json"), ("lacking", "nowhere_to_be_found")):
        (tmp_path / "tutorials" / f"{name}.md").write_text(PAGE.format(library))
    assert needed.not_run(tmp_path) == ["tutorials/lacking.md"]


@pytest.mark.parametrize(
    "path", sorted((DOCS / "tutorials").glob("*.md")), ids=lambda one: one.stem
)
def test_every_library_that_a_tutorial_imports_is_gradflows_own_or_named(needed, path):
    text = path.read_text(encoding="utf-8")
    imported = {"lightning", "transformers", "accelerate"} & {
        line.split()[1].partition(".")[0]
        for line in text.splitlines()
        if line.startswith(("import ", "from "))
    }
    named = needed._NEEDS.search(text)
    assert imported <= set(named[1].replace(" ", "").split(",") if named else [])
