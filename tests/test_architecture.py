"""The house is as docs/explanation/architecture.md draws it, and as its rules say."""

import ast
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "explanation" / "architecture.md"
PACKAGES = ("gradflow", "analyses", "reports")
MOST_FILES = 15
# What nearly everything uses is left out of the pictures, which say so.
USED_EVERYWHERE = {
    "gradflow",
    "gradflow.errors",
    "gradflow.seeding",
    "gradflow.lazy_names",
    "gradflow.command_line",
}
MECHANISM = {"reading", "registry", "result", "statistics", "plotting", "showing", "wording"}
SUBJECTS = {"accuracy", "gradients", "skips"}

Room = Callable[[str], str | None]


@cache
def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def is_for_types_alone(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imported_names(node: ast.AST):
    """Every `(module, name)` that is imported below `node`, but for types alone."""
    for child in ast.iter_child_nodes(node):
        if is_for_types_alone(child):
            continue
        if isinstance(child, ast.ImportFrom) and child.module:
            yield from ((child.module, alias.name) for alias in child.names)
        elif isinstance(child, ast.Import):
            yield from ((alias.name, "") for alias in child.names)
        yield from imported_names(child)


@cache
def imports() -> frozenset[tuple[str, str]]:
    """Pairs of modules of which the first imports the second."""
    known = modules()
    pairs = set()
    for module, path in known.items():
        for source, name in imported_names(ast.parse(path.read_text(encoding="utf-8"))):
            target = f"{source}.{name}" if f"{source}.{name}" in known else source
            if target in known:
                pairs.add((module, target))
    return frozenset(pairs)


def arrows(room: Room) -> set[tuple[str, str]]:
    pairs = {(room(one), room(other)) for one, other in imports()}
    return {(a, b) for a, b in pairs if a and b and a != b}


def of_the_whole(module: str) -> str | None:
    parts = module.split(".")
    found = ".".join(parts[:2]) if parts[0] == "gradflow" else parts[0]
    return None if found in USED_EVERYWHERE else found


def within(package: str, *left_out: str) -> Room:
    depth = package.count(".") + 1

    def room(module: str) -> str | None:
        if not module.startswith(f"{package}."):
            return None
        name = module.split(".")[depth]
        return None if name in left_out else name

    return room


def question_of(module: str) -> str | None:
    """The question that a module belongs to: a folder or file of a subject, or a subject itself."""
    parts = module.split(".")
    if parts[0] != "analyses" or len(parts) < 2 or parts[1] in MECHANISM:
        return None
    if parts[1] in SUBJECTS:
        return ".".join(parts[1:3]) if len(parts) > 2 else None
    return parts[1]


def of_mechanism(module: str) -> str | None:
    name = within("analyses")(module)
    return name if name in MECHANISM else None


PICTURES = {
    "The whole": of_the_whole,
    "The tracer": within("gradflow.hooks", "tracer", "step_cycle"),
    "The run folder": within("gradflow.runs", "__main__"),
    "What the questions share": of_mechanism,
    "The questions": question_of,
    "The reports": within("reports"),
}


def drawn(heading: str) -> set[tuple[str, str]]:
    text = PAGE.read_text(encoding="utf-8")
    _, _, section = text.partition(f"\n## {heading}\n")
    _, _, picture = section.partition("```mermaid\n")
    picture, _, _ = picture.partition("```")
    lines = [line.split(" --> ") for line in picture.splitlines() if " --> " in line]
    return {(a.strip(), b.strip()) for a, targets in lines for b in targets.split(" & ")}


@pytest.mark.parametrize("heading", PICTURES)
def test_pictures_show_the_imports_and_nothing_else(heading):
    imported = arrows(PICTURES[heading])
    assert imported
    assert drawn(heading) == imported


def test_every_room_is_described():
    text = PAGE.read_text(encoding="utf-8")
    rooms = {
        f"{path.parent.relative_to(ROOT).as_posix()}/"
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
        # What questions there are, their folders say.
        if package != "analyses" or path.parent.parent.name not in SUBJECTS
    }
    assert {room for room in rooms if f"`{room}`" not in text} == set()


def test_question_imports_of_another_only_what_it_offers():
    breaches = {
        (module, target)
        for module, target in imports()
        if question_of(module)
        and question_of(target)
        and question_of(module) != question_of(target)
        and modules()[target].name != "__init__.py"
        # A question of one file has nothing but what it offers.
        and target.removeprefix("analyses.") != question_of(target)
    }
    assert breaches == set()


def test_what_a_question_offers_is_listed():
    for module, path in modules().items():
        if question_of(module) and path.name == "__init__.py":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            offered = {name for _, name in imported_names(tree)}
            assert not offered or "__all__" in path.read_text(encoding="utf-8"), module


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_has_more_files_than_one_can_take_in(package):
    folders = [path.parent for path in (ROOT / package).rglob("__init__.py")]
    many = {folder for folder in folders if len(list(folder.glob("*.py"))) > MOST_FILES}
    assert many == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_no_file_repeats_the_name_of_its_folder(package):
    repeating = [
        path
        for path in (ROOT / package).rglob("*.py")
        if path.parent != ROOT / package
        and re.match(rf"{path.parent.name.rstrip('s')}s?_", path.stem)
    ]
    assert repeating == []


def test_tests_mirror_the_sources():
    """Every folder of tests of a package is one of that package."""
    for package in PACKAGES:
        for path in (ROOT / "tests" / package).rglob("test_*.py"):
            assert (ROOT / path.parent.relative_to(ROOT / "tests")).is_dir(), path
