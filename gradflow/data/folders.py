"""Finds the labelled images of a folder: a folder per class, a published split, or a table."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

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
from gradflow.data.notes import Notes
from gradflow.data.parquet import files_in_parquet, parquet_files, side_of_parquet
from gradflow.data.table_files import (
    TABLE_SUFFIXES,
    files_in_split_tables,
    files_in_table,
    side_of_table,
    usable_table,
)
from gradflow.errors import DataError


def find_files(
    source: Path, reading: Reading | None = None, notes: Notes | None = None
) -> list[LabelledFile]:
    """The labelled images of a folder or of a table, in the order of their names.

    A folder is read by the first of these that fits:

    - tables at its top named after the sides of a split, such as train.csv and val.csv, make it;
    - a table at its top, `*.csv` or `metadata.jsonl`, gives the labels;
    - Parquet files at its top or in its folder `data` hold images and labels;
    - folders named train, val and the like hold the sides of a split, each read as one of these;
    - each folder is a class, with images at any depth.

    Hidden files, files without the suffix of an image, and links to folders within a class are
    skipped.

    Args:
        source: The folder, CSV, JSONL or Parquet file.
        reading: How to read it; see `Reading`.
        notes: Takes bad rows and files, which the caller settles, and how the folder was
            understood. Without it bad rows and files are refused.

    Raises:
        DataError: The folder is missing, empty, or contradicts its table; a link leads
            out of it; a class has fewer than two images, or there are fewer than two classes.
    """
    reading = reading or Reading()
    own = notes or Notes(reading.skip_bad)
    try:
        files, root = _find(source, reading, own)
        _require_inside(root, (file.path for file in files if file.content is None))
    except OSError as error:
        raise DataError(
            f"{source} cannot be read ({error.strerror}); check its permissions"
        ) from error
    try:
        require_classes(files, source)
    except DataError:
        own.settle()  # raises, if what is bad may be why
        raise
    if notes is None:
        own.settle()
    return files


def _find(source: Path, reading: Reading, notes: Notes) -> tuple[list[LabelledFile], Path]:
    """The files, and the folder that must contain all of them."""
    if source.is_file():
        suffix = source.suffix.lower()
        if suffix == ".parquet":
            return files_in_parquet(source, source.parent, reading, notes), source.parent
        if suffix not in TABLE_SUFFIXES:
            raise DataError(f"{source} is a file; give a folder of images or a CSV of their labels")
        return files_in_table(source, source.parent, reading, notes), source.parent
    if not source.is_dir():
        raise DataError(f"the folder {source} does not exist; check the path")
    if reading.layout == "classes":
        return _files_by_class(source, source, notes), source
    if reading.layout == "auto":
        files = _files_of_split(source, reading, notes)
        if files is None:
            files = _files_described(source, source, reading, notes)
        if files is not None:
            return files, source
    parts = _split_folders(source, reading)
    if parts:
        return _files_by_side(source, parts, reading, notes), source
    return _files_by_class(source, source, notes), source


def _files_of_split(source: Path, reading: Reading, notes: Notes) -> list[LabelledFile] | None:
    """The files of tables at the top of `source` that make a split; None without such."""
    tables = [path for path in visible(source) if path.suffix.lower() in TABLE_SUFFIXES]
    _require_inside(source, [path for path in tables if side_of_table(path)])
    return files_in_split_tables(source, reading, notes)


def _files_described(
    folder: Path, root: Path, reading: Reading, notes: Notes
) -> list[LabelledFile] | None:
    """The files of a table or of Parquet files in `folder`; None if it holds neither."""
    table = usable_table(folder, reading, notes)
    if table is not None:
        _require_inside(root, [table])
        return files_in_table(table, root, reading, notes)
    parts = parquet_files(folder)
    if not parts:
        return None
    _require_inside(root, parts)
    names = {part: side_of_parquet(part) for part in parts}
    of: dict[str, Side | None] = {}
    if all(names.values()) and len(set(names.values())) > 1:
        of = sides(sorted({name for name in names.values() if name}), folder)
        notes.say(f"the split of the Parquet files is used: {describe_split(of)}")
    found = []
    for part, name in names.items():
        side = of.get(name or "")
        if not of or side is not None:
            found += files_in_parquet(part, root, reading, notes, side)
    return found


def _split_folders(source: Path, reading: Reading) -> list[Path]:
    """The folders of `source` that are sides of a split; none if they are classes.

    Raises `DataError` if they may be either, or if a split is asked for and there is none.
    """
    folders = [path for path in visible(source) if path.is_dir()]
    named = [path for path in folders if role_of(path.name)]
    if reading.layout == "split":
        if named:
            return named
        raise DataError(
            f"{source} has no folders named train and val, valid, validation or test; name its "
            "sides so, or leave --layout out"
        )
    nested = [path for path in named if _is_side(path)]
    if len(named) < 2 and not nested:
        return []
    others = [path for path in folders if path not in named and any(_images(path, source))]
    if others:
        raise DataError(
            f"{source} has {_listed(named)}, named like a side of a split, beside "
            f"{_listed(others)}; give --layout classes if all are classes, or --layout split to "
            "leave the others out"
        )
    return named


def _is_side(folder: Path) -> bool:
    """Whether `folder` holds classes, a table or Parquet files, and not the images of one class."""
    inner = visible(folder)
    if any(path.suffix.lower() in TABLE_SUFFIXES | {".parquet"} for path in inner):
        return True
    flat = any(path.suffix.lower() in IMAGE_SUFFIXES for path in inner)
    return not flat and any(path.is_dir() for path in inner)


def _files_by_side(
    source: Path, parts: list[Path], reading: Reading, notes: Notes
) -> list[LabelledFile]:
    """The files of the sides of a published split. A test set without labels is left out."""
    unlabelled = [path for path in parts if role_of(path.name) == "test" and not _is_side(path)]
    of = sides([path.name for path in parts if path not in unlabelled], source)
    files = []
    for part in parts:
        side = of.get(part.name)
        if side is None:
            continue
        if not _is_side(part):
            raise DataError(
                f"{part} is named like a side of a split but holds no folder for each class; sort "
                "its images into classes, or give --layout classes if it is a class itself"
            )
        found = _files_described(part, source, reading, notes)
        found = found if found is not None else _files_by_class(part, source, notes)
        files += [replace(file, side=side) for file in found]
    said = describe_split(of)
    for part in unlabelled:
        said += f", {part.name} has no labels and is left out"
    if "validation" in of.values():
        notes.say(f"the folder's own split is used: {said}")
        return sorted(files, key=lambda file: file.name)
    notes.say(f"the folder has no validation images, so a part of {said.split()[0]} validates")
    return sorted((replace(file, side=None) for file in files), key=lambda file: file.name)


def _files_by_class(folder: Path, root: Path, notes: Notes) -> list[LabelledFile]:
    files = []
    for class_folder in (path for path in visible(folder) if path.is_dir()):
        images = list(_images(class_folder, root))
        if not images:
            notes.bad(
                "class folders without images",
                as_text(class_folder.name),
                f"the class folder {class_folder} holds no images; fill or remove it",
            )
        label = as_text(class_folder.name)
        files += [
            LabelledFile(path, as_text(path.relative_to(root).as_posix()), label) for path in images
        ]
    if not files:
        notes.settle()
        raise DataError(
            f"{folder} holds neither a folder of images for each class nor a CSV; add one of them"
        )
    return files


def _images(folder: Path, root: Path) -> Iterable[Path]:
    return (path for path in sorted(folder.rglob("*")) if _is_image(path, root))


def _is_image(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return not hidden and path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _listed(paths: list[Path]) -> str:
    names = [as_text(path.name) for path in paths]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


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


def require_classes(files: list[LabelledFile], source: Path) -> None:
    """Make sure that there are two classes with two images each. Raises `DataError` if not."""
    counts = Counter(file.label for file in files)
    if not counts:
        raise DataError(f"none of the images of {source} can be used; correct its rows or files")
    if len(counts) < 2:
        only = next(iter(counts))
        inner = source / only
        deeper = inner.is_dir() and any(path.is_dir() for path in visible(inner))
        hint = f", or give {inner} if the classes are in it" if deeper else ""
        raise DataError(f"{source} has only one class ({only}); add images of a second one{hint}")
    for label, count in sorted(counts.items()):
        if count < 2:
            raise DataError(
                f"the class {label} of {source} has a single image; "
                "add another, because training and validation need one each"
            )
