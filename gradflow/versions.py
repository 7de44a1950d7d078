"""Compares versions of libraries by their numbers."""

import re


def release_of(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: 2.18.0rc1 is (2, 18, 0), 2.5.1+cu124 (2, 5, 1)."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()
