"""Every page and file of docs/ that code, tests or texts name exists."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"(?<![\w/])docs/[\w./-]*[\w/]")
MADE = ("docs/_build", "docs/pictures")  # by the build
TEXTS = {".py", ".md", ".toml", ".cff", ".j2", ".sh", ""}


def tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return listed.stdout.splitlines()


def test_every_page_that_is_named_exists():
    absent = set()
    for name in tracked():
        path = ROOT / name
        # What changed in earlier versions is told with the names of its time.
        if name == "CHANGELOG.md" or path.suffix not in TEXTS or not path.is_file():
            continue
        for found in NAMED.findall(path.read_text(encoding="utf-8")):
            generated = re.match(r"docs/reference/(analyses|api|probes|quantities)/", found)
            # Tests match messages, with a full stop escaped or without it.
            exists = (ROOT / found).exists() or (ROOT / f"{found}.md").exists()
            if not exists and not found.startswith(MADE) and not generated:
                absent.add((name, found))
    assert absent == set()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_every_link_at_the_top_has_its_end(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
    assert [link for link in links if not (ROOT / link).exists()] == []
