"""Prints the oldest allowed version of every direct dependency, as constraints for pip.

    python3 .ci/oldest.py > .ci/constraints-oldest.txt

They are the lower bounds in pyproject.toml of what the package and its tests need; the tools of
developers (the extra ``dev``) do not run with the package and have no part in it.
"""

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)\s*>=\s*(?P<bound>[0-9][0-9.]*)(,<[0-9.]+)?")


def oldest_versions() -> dict[str, str]:
    """The lower bound of each direct dependency of the package and its tests, by name.

    Raises ValueError where a dependency has no lower bound, or is written in another form than
    ``name>=bound`` or ``name>=bound,<bound``.
    """
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    bounds = {}
    for requirement in requirements:
        found = REQUIREMENT.fullmatch(requirement)
        if found is None:
            raise ValueError(f"pyproject.toml: {requirement!r} is not like name>=bound[,<bound]")
        bounds[found["name"]] = found["bound"]
    return bounds


if __name__ == "__main__":
    print("# Printed by `python3 .ci/oldest.py` from the lower bounds in pyproject.toml.")
    for name, bound in sorted(oldest_versions().items()):
        print(f"{name}=={bound}")
