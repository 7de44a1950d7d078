"""Finds the image files that a table names: beside it, in a folder beside it, or below."""

import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path

from gradflow.data.label_csv import LabelledRow, has_columns, read_labels
from gradflow.data.label_json import JSON_SUFFIXES
from gradflow.data.labelled_files import (
    IMAGE_SUFFIXES,
    LabelledFile,
    Reading,
    Side,
    as_text,
    describe_split,
    role_of,
    sides,
    visible,
)
from gradflow.data.notes import NAMES_SHOWN, Notes, shown
from gradflow.errors import DataError

TABLE_SUFFIXES = JSON_SUFFIXES | {".csv"}
# How many names are tried to find the folder of the images.
_TRIED_NAMES = 1000
# Files below the table beyond which no name is looked for in all of them: it may lie in a home.
_MOST_FILES_BELOW = 1_000_000


def files_in_table(table: Path, root: Path, reading: Reading, notes: Notes) -> list[LabelledFile]:
    """The files that the CSV or JSONL file `table` names, in the order of their names.

    The names of the data set are the paths within `root`. In the table, a name may lack the ending
    of its file, or its folder if only one file below the table's folder has it. The column that
    `reading` names as `split` makes the split. Otherwise it is made by the names if each begins
    with a folder such as train or val, and both sides occur.

    Raises:
        DataError: The table is unusable, none of its images is there, or a name fits several files.
    """
    labels = read_labels(table, reading.columns, notes)
    base, found = _locate(table, labels, notes)
    begin = "" if base == root else f"{as_text(base.relative_to(root).as_posix())}/"
    merged: dict[str, LabelledFile] = {}
    side_of = _sides(table, labels, found, reading, notes)
    for name, row in sorted(labels.items()):
        path, side = found.get(name), side_of.get(name)
        if path is None or (side_of and side is None):
            continue
        file = LabelledFile(base / path, begin + path, row.label, row.rows, side)
        known = merged.get(path)
        if known is not None and known.label != file.label:
            raise DataError(
                f"{table} gives {path} two labels, {known.label} and {file.label}; keep one of them"
            )
        rows = file.rows + (known.rows if known else 0)
        merged[path] = LabelledFile(file.path, file.name, file.label, rows, side)
    return [merged[path] for path in sorted(merged)]


def files_in_split_tables(
    folder: Path, reading: Reading, notes: Notes
) -> list[LabelledFile] | None:
    """The files of tables such as train.csv and val.csv, which make a split; None without such.

    An image that both sides name validates, and is left out of the training. A table of tests
    without labels is left out.

    Raises `DataError` if two tables are of one side, or give one image two labels; and what
    `files_in_table` raises.
    """
    tables = {path: side_of_table(path) for path in _tables(folder)}
    labelled = [path for path in tables if _is_readable(path, reading)]
    named = {path: name for path in labelled if (name := tables[path])}
    if len(labelled) < 2 or len(named) < len(labelled) or "split" in reading.columns:
        return None
    if "train" not in {role_of(name) for name in named.values()}:
        return None
    if len(set(named.values())) < len(named):
        names = " and ".join(as_text(path.name) for path in named)
        raise DataError(f"{folder} has {names}, of which two are of one side; remove one")
    of = sides(named.values(), folder)
    # `of` is in the order train, val, test.
    files = {name: as_text(path.name) for path, name in named.items()}
    said = describe_split({files[name]: side for name, side in of.items()})
    for path, name in tables.items():
        if name and path not in named:
            said += f", {as_text(path.name)} has no labels and is left out"
    notes.say(f"the split of the tables is used: {said}")
    found = [
        replace(file, side=of[name])
        for path, name in named.items()
        if of[name] is not None
        for file in files_in_table(path, folder, reading, notes)
    ]
    return _without_named_twice(folder, found, notes)


def side_of_table(path: Path) -> str | None:
    """The side of a split that a table's name says: train in train.csv and metadata-train.csv."""
    words = [word for word in re.split(r"[-_. ]+", path.stem.lower()) if word not in _TABLE_WORDS]
    return words[0] if len(words) == 1 and role_of(words[0]) else None


# What the name of a table may say beside the side of a split.
_TABLE_WORDS = frozenset({"metadata", "labels", "label", "annotations", "data", "set", "images"})


def _without_named_twice(
    folder: Path, files: list[LabelledFile], notes: Notes
) -> list[LabelledFile]:
    validating = {file.name: file.label for file in files if file.side == "validation"}
    twice = [file for file in files if file.side == "training" and file.name in validating]
    for file in twice:
        if validating[file.name] != file.label:
            raise DataError(
                f"the tables of {folder} give {file.name} two labels, {file.label} to train on "
                f"and {validating[file.name]} to validate; keep one of them"
            )
    if twice:
        names = [file.name for file in twice[:NAMES_SHOWN]]
        notes.say(
            "warning, images that the tables name on both sides: "
            f"{len(twice):,} ({shown(names, len(twice))}); they are left out of the training"
        )
    gone = {file.name for file in twice}
    kept = [file for file in files if file.side == "validation" or file.name not in gone]
    return sorted(kept, key=lambda file: file.name)


def _tables(folder: Path) -> list[Path]:
    return [
        path
        for path in visible(folder)
        if path.is_file()
        and (
            path.suffix.lower() == ".csv"
            or path.name.lower() == "metadata.jsonl"
            or (path.suffix.lower() in JSON_SUFFIXES and side_of_table(path))
        )
    ]


def _is_readable(path: Path, reading: Reading) -> bool:
    return path.suffix.lower() in JSON_SUFFIXES or has_columns(path, reading.columns)


def usable_table(folder: Path, reading: Reading, notes: Notes) -> Path | None:
    """The table at the top of `folder`; of several, the one with the columns; None without any.

    Raises `DataError` if several have the columns, or none of several has.
    """
    tables = _tables(folder)
    if len(tables) < 2:
        return tables[0] if tables else None
    fitting = [path for path in tables if _is_readable(path, reading)]
    if len(fitting) != 1:
        names = ", ".join(path.name for path in tables)
        columns = "" if fitting else ", and its columns with --columns image=NAME label=NAME"
        raise DataError(
            f"{folder} holds several CSV files ({names}); give the path of one{columns}"
        )
    notes.say(
        f"of {len(tables)} tables, only {as_text(fitting[0].name)} has the columns; it is used"
    )
    return fitting[0]


def _sides(
    table: Path,
    labels: Mapping[str, LabelledRow],
    found: Mapping[str, str],
    reading: Reading,
    notes: Notes,
) -> dict[str, Side | None]:
    """The side of each name in the split that the table itself makes; empty if it makes none."""
    if "split" in reading.columns:
        entries = {name: row.split for name, row in labels.items()}
        where = f"the column {reading.columns['split']}"
        for name, entry in entries.items():
            if role_of(entry) is None:
                raise DataError(
                    f"{table} gives {name} the side {entry!r} in {where}, which is none of train, "
                    "val, valid, validation and test; correct it or leave split= out"
                )
    else:
        entries = {name: found[name].split("/")[0] for name in labels if name in found}
        roles = {role_of(entry) for entry in set(entries.values())}
        if reading.layout == "classes" or None in roles or len(roles) < 2 or "train" not in roles:
            return {}
        where = "the folders in its file names"
    of = sides(sorted(set(entries.values())), f"{table} ({where})")
    if "validation" not in of.values():
        return {}
    notes.say(f"split by {where} of {as_text(table.name)}: {describe_split(of)}")
    return {name: of[entry] for name, entry in entries.items()}


def _locate(table: Path, names: Collection[str], notes: Notes) -> tuple[Path, dict[str, str]]:
    """The folder of the files, and the path in it of each name that is there.

    The folder is that of the table, one named like the table, or any other beside it; at last the
    files are looked for at any depth below the table.
    """
    home = table.parent
    preferred = [home, home / table.stem]
    others = [path for path in visible(home) if path.is_dir() and path.name != table.stem]
    for folder in preferred:
        if _has_all(folder, names):
            return folder, _paths(folder, names)
    complete = [folder for folder in others if _has_all(folder, names)]
    if len(complete) > 1:
        folders = " and ".join(folder.name for folder in complete)
        raise DataError(
            f"the files of {table} are in {folders}; write the folder into its filenames"
        )
    if complete:
        return complete[0], _paths(complete[0], names)
    first = list(islice(names, _TRIED_NAMES))
    fullest = max([*preferred, *others], key=lambda folder: len(_paths(folder, first)))
    found = _paths(fullest, names)
    below = _paths_below(table, names)
    if len(below) > len(found):
        fullest, found = home, below
    absent = sorted(name for name in names if name not in found)
    for name in absent:
        notes.bad(
            f"images of {table.name} that are not in {fullest}",
            as_text(name),
            f"1 of the {len(names):,} images of {table} is not in {fullest}, {as_text(name)}; "
            "add it or remove its row",
        )
    return fullest, found


def _has_all(folder: Path, names: Iterable[str]) -> bool:
    listed = _Listings(folder)
    return all(listed.path_of(name) is not None for name in names)


def _paths(folder: Path, names: Iterable[str]) -> dict[str, str]:
    listed = _Listings(folder)
    found = {name: listed.path_of(name) for name in names}
    return {name: path for name, path in found.items() if path is not None}


class _Listings:
    """The files below `folder`, of which each folder is listed at most once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._by_stem = cache(self._list)

    def path_of(self, name: str) -> str | None:
        """The path of the file called `name`, or `name` and the ending of an image.

        Raises `DataError` if several endings fit.
        """
        # os.path returns False for invalid names, where pathlib would raise an error.
        if os.path.isfile(f"{self._folder}/{name}"):  # noqa: PTH113
            return name
        parent, _, stem = name.rpartition("/")
        endings = self._by_stem(parent).get(stem, [])
        if len(endings) > 1:
            files = " and ".join(as_text(stem + ending) for ending in endings)
            raise DataError(
                f"{as_text(name)} may mean {files} in {self._folder / parent}; "
                "write the ending into the table"
            )
        return f"{name}{endings[0]}" if endings else None

    def _list(self, parent: str) -> dict[str, list[str]]:
        """For each name of an image in the folder `parent` without its ending, the endings."""
        endings: dict[str, list[str]] = {}
        try:
            entries = sorted(os.listdir(f"{self._folder}/{parent}"))  # noqa: PTH208 - as above
        except (OSError, ValueError):
            return endings
        for entry in entries:
            stem, ending = os.path.splitext(entry)  # noqa: PTH122
            if ending.lower() in IMAGE_SUFFIXES:
                endings.setdefault(stem, []).append(ending)
        return endings


def _paths_below(table: Path, names: Collection[str]) -> dict[str, str]:
    """The paths of names without a folder, each of which a single file at any depth has.

    Raises `DataError` if several files have a name.
    """
    wanted = {name for name in names if "/" not in name}
    found: dict[str, str] = {}
    seen = 0
    for folder, inner, files in os.walk(table.parent) if wanted else ():
        seen += len(files)
        if seen > _MOST_FILES_BELOW:
            return {}
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for file in sorted(files):
            stem, ending = os.path.splitext(file)  # noqa: PTH122
            if ending.lower() not in IMAGE_SUFFIXES:
                continue
            for name in {file, stem} & wanted:
                path = (Path(folder) / file).relative_to(table.parent).as_posix()
                if name in found:
                    raise DataError(
                        f"{table} names {as_text(name)}, which is both {as_text(found[name])} and "
                        f"{as_text(path)}; write the folder and the ending into the table"
                    )
                found[name] = path
    return found
