"""Labelled image files, how they are asked for, and the sides of a split that names stand for."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gradflow.errors import DataError

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
Layout = Literal["auto", "classes", "split"]
Side = Literal["training", "validation"]
Role = Literal["train", "val", "test"]

_ROLES: dict[str, Role] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Reading:
    """How images of people are to be read.

    Fields:
        layout: what folders named train, val or test are: `classes`, sides of a `split`, or (auto)
            sides of a split if no other folder of images stands beside them.
        columns: names of the columns image, label and split of a table.
        skip_bad: whether bad rows and files are left out instead of refused.
    """

    layout: Layout = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    skip_bad: bool = False


@dataclass(frozen=True)
class LabelledFile:
    """An image file, or an image in a Parquet file.

    Fields:
        path: the path of the file; for an image in a Parquet file, words that say which it is.
        name: its path within the data set; bytes that are not UTF-8 appear as `\\xff`.
        label: the name of its class, written in the same way.
        rows: how many rows of the table name it; 1 without a table.
        side: its side of the split that the source itself makes; None if it makes none.
        content: the bytes of an image that has no file of its own.
    """

    path: Path
    name: str
    label: str
    rows: int = 1
    side: Side | None = None
    content: bytes | None = field(default=None, repr=False)


def as_text(name: str) -> str:
    """`name` as valid text: bytes that are not UTF-8 are written as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def visible(folder: Path) -> list[Path]:
    """The files and folders in `folder` that are not hidden, in the order of their names."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def role_of(name: str) -> Role | None:
    """What `name` stands for in a split, in upper or lower case; None if it is no such name."""
    return _ROLES.get(name.strip().lower())


def sides(names: Iterable[str], source: object) -> dict[str, Side | None]:
    """The side of each of `names`, all of which have a role; None for a test set that is left out.

    The validation set validates. The test set validates only if there is no validation set.

    Raises `DataError` if two names have one role, or if none is for training.
    """
    by_role: dict[str, str] = {}
    for name in names:
        role = role_of(name) or ""
        if role in by_role:
            raise DataError(
                f"{source} has both {by_role[role]} and {name}, which mean the same side of a "
                "split; rename one, or give --layout classes if they are classes"
            )
        by_role[role] = name
    if "train" not in by_role:
        raise DataError(
            f"{source} has {' and '.join(by_role.values())} but nothing to train on; add a folder "
            "train, or give --layout classes if they are classes"
        )
    found: dict[str, Side | None] = {by_role["train"]: "training"}
    for role in ("val", "test"):
        if role in by_role:
            taken = "validation" in found.values()
            found[by_role[role]] = None if taken else "validation"
    return found


def describe_split(of: dict[str, Side | None]) -> str:
    """Who trains, who validates and what is left out, e.g. `train trains, val validates`."""
    verbs = {"training": "trains", "validation": "validates", None: "is left out"}
    return ", ".join(f"{name} {verbs[side]}" for name, side in of.items())
