"""Finds the image files of a folder and their labels, from one folder per class or from a CSV."""

import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from gradflow.data.label_csv import read_labels
from gradflow.errors import DataError

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
# How many names are tried to find the folder of the images, and how many missing ones are shown.
_TRIED_NAMES, _NAMES_SHOWN = 1000, 3


@dataclass(frozen=True)
class LabelledFile:
    """An image file.

    Fields:
        path: the path of the file.
        name: its path within the data set; bytes that are not UTF-8 appear as `\\xff`.
        label: the name of its class, written in the same way.
        rows: how many rows of the CSV name it; 1 without a CSV.
    """

    path: Path
    name: str
    label: str
    rows: int = 1


def find_files(source: Path) -> list[LabelledFile]:
    """The labelled images of a folder or of a CSV file, in the order of their names.

    If a folder has exactly one `*.csv` at its top, that file gives the labels. Otherwise it holds
    one folder per class, with images at any depth. Hidden files, files without the suffix of an
    image, and links to folders within a class are skipped.

    Raises:
        DataError: The folder is missing, empty, or contradicts its CSV; a link leads
            out of it; a class has fewer than two images, or there are fewer than two classes.
    """
    try:
        files, root = _find(source)
        _require_inside(root, (file.path for file in files))
    except OSError as error:
        raise DataError(
            f"{source} cannot be read ({error.strerror}); check its permissions"
        ) from error
    _require_classes(files, source)
    return files


def _find(source: Path) -> tuple[list[LabelledFile], Path]:
    """The files, and the folder that must contain all of them."""
    if source.is_file():
        if source.suffix.lower() != ".csv":
            raise DataError(f"{source} is a file; give a folder of images or a CSV of their labels")
        return _files_in_table(source), source.parent
    if not source.is_dir():
        raise DataError(f"the folder {source} does not exist; check the path")
    tables = [path for path in _visible(source) if path.suffix.lower() == ".csv" and path.is_file()]
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise DataError(f"{source} holds several CSV files ({names}); give the path of one")
    _require_inside(source, tables)
    return (_files_in_table(tables[0]) if tables else _files_by_class(source)), source


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _files_by_class(folder: Path) -> list[LabelledFile]:
    files = []
    for class_folder in (path for path in _visible(folder) if path.is_dir()):
        images = [path for path in sorted(class_folder.rglob("*")) if _is_image(path, folder)]
        if not images:
            raise DataError(f"the class folder {class_folder} holds no images; fill or remove it")
        label = _text(class_folder.name)
        files += [
            LabelledFile(path, _text(path.relative_to(folder).as_posix()), label) for path in images
        ]
    if not files:
        raise DataError(
            f"{folder} holds neither a folder of images for each class nor a CSV; add one of them"
        )
    return files


def _is_image(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _text(name: str) -> str:
    """`name` as valid text: bytes that are not UTF-8 are written as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _files_in_table(table: Path) -> list[LabelledFile]:
    labels = read_labels(table)
    base = _image_folder(table, labels)
    begin = "" if base == table.parent else f"{_text(base.name)}/"
    return [
        LabelledFile(base / name, begin + name, row.label, row.rows)
        for name, row in sorted(labels.items())
    ]


def _image_folder(table: Path, names: Collection[str]) -> Path:
    """The folder of the files: that of the CSV, one named like the CSV, or any other beside it."""
    home = table.parent
    preferred = [home, home / table.stem]
    others = [path for path in _visible(home) if path.is_dir() and path.name != table.stem]
    for folder in preferred:
        if _has(folder, names):
            return folder
    complete = [folder for folder in others if _has(folder, names)]
    if len(complete) > 1:
        folders = " and ".join(folder.name for folder in complete)
        raise DataError(
            f"the files of {table} are in {folders}; write the folder into its filenames"
        )
    if complete:
        return complete[0]
    first = list(islice(names, _TRIED_NAMES))
    fullest = min([*preferred, *others], key=lambda folder: len(_missing(folder, first)))
    absent = _missing(fullest, names)
    named = ", ".join(sorted(absent)[:_NAMES_SHOWN])
    which = f"the first is {named}" if len(absent) == 1 else f"the first are {named}"
    raise DataError(
        f"{len(absent):,} of the {len(names):,} images of {table} are not in {fullest}, "
        f"{which}; add them or remove their rows"
    )


def _has(folder: Path, names: Iterable[str]) -> bool:
    # os.path returns False for invalid names, where pathlib would raise an error.
    return all(os.path.isfile(f"{folder}/{name}") for name in names)  # noqa: PTH113


def _missing(folder: Path, names: Iterable[str]) -> list[str]:
    return [name for name in names if not os.path.isfile(f"{folder}/{name}")]  # noqa: PTH113


def _require_inside(root: Path, paths: Iterable[Path]) -> None:
    """Make sure that no link leads out of `root`; `root` may itself be a link."""
    home = root.resolve()
    folders: dict[Path, bool] = {}
    for path in paths:
        folder = path.parent
        if folder not in folders:
            folders[folder] = folder.resolve().is_relative_to(home)
        if not folders[folder] or (path.is_symlink() and not path.resolve().is_relative_to(home)):
            link = folder if not folders[folder] else path
            raise DataError(
                f"{link} is a link that leads out of {root}, to {link.resolve()}; "
                "replace it with a copy of its target"
            )


def _require_classes(files: list[LabelledFile], source: Path) -> None:
    counts = Counter(file.label for file in files)
    if len(counts) < 2:
        raise DataError(
            f"{source} has only one class ({next(iter(counts))}); add images of a second one"
        )
    for label, count in sorted(counts.items()):
        if count < 2:
            raise DataError(
                f"the class {label} of {source} has a single image; "
                "add another, because training and validation need one each"
            )
