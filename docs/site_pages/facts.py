"""What pages say of the project, read from where it stands."""

import re
import tomllib
from pathlib import Path

import gradflow
from gradflow.runs.format.schema import SCHEMA_VERSION


def facts(root: Path) -> dict[str, str]:
    """The values that pages of the site name in double braces."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    torch = next(one for one in project["dependencies"] if one.startswith("torch>="))
    return {
        "version": gradflow.__version__,
        "python": _from(project["requires-python"]),
        "torch": _from(torch.removeprefix("torch")),
        "schema": str(SCHEMA_VERSION),
    }


def citation(root: Path) -> str:
    """The BibTeX entry, from CITATION.cff."""
    lines = (root / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(": ", 1) for line in lines if ": " in line and line[0] not in " -")
    (author,) = (line.split("name: ")[1] for line in lines if "- name: " in line)
    year = fields.get("date-released", "").strip('"')[:4]
    return "\n".join(
        [
            "@software{gradflow,",
            f"  author  = {{{{{author}}}}},",
            f"  title   = {{{fields['title'].strip(chr(34))}}},",
            f"  version = {{{fields['version']}}},",
            *([f"  year    = {{{year}}},"] if year else []),
            "}",
        ]
    )


def releases(root: Path) -> str:
    """A list of the versions in CHANGELOG.md, the newest first, each with what it is about."""
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    rows = []
    for heading, changes in zip(parts[1::2], parts[2::2], strict=True):
        name = f"{gradflow.__version__}, not released yet" if heading == "Unreleased" else heading
        count = len(re.findall(r"^- ", changes, re.MULTILINE))
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        rows.append(f"- {name}: [{count} changes](changelog.md#{anchor})")
    return "\n".join(rows)


def _from(bound: str) -> str:
    return f"{bound.removeprefix('>=')} or newer"
