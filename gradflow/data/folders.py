"""Which image files a folder holds and their labels: one folder a class, or a CSV beside them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import pandas as pd

from gradflow.errors import DataError

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)


@dataclass(frozen=True)
class LabelledFile:
    """An image file: its path, its name within the data set, and the name of its class."""

    path: Path
    name: str
    label: str


def find_files(source: Path) -> list[LabelledFile]:
    """The labelled images of a folder or of a CSV file, in the order of their names.

    A folder with exactly one `*.csv` at its top is described by it; any other folder holds one
    folder a class, in which images may lie at any depth. Hidden files and files that are not
    images by their suffix are skipped.

    Raises:
        DataError: The folder is missing, empty, or contradicts its description; a class has fewer
            than two images, or there are fewer than two classes.
    """
    if source.is_file():
        if source.suffix.lower() != ".csv":
            raise DataError(f"{source} is a file; give a folder of images or a CSV of their labels")
        files = _described_files(source)
    elif source.is_dir():
        tables = [path for path in _visible(source) if path.suffix.lower() == ".csv"]
        if len(tables) > 1:
            names = ", ".join(path.name for path in tables)
            raise DataError(f"{source} holds several CSV files ({names}); give the path of one")
        files = _described_files(tables[0]) if tables else _files_by_class(source)
    else:
        raise DataError(f"the folder {source} does not exist; check the path")
    _require_classes(files, source)
    return files


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _files_by_class(folder: Path) -> list[LabelledFile]:
    files = []
    for class_folder in (path for path in _visible(folder) if path.is_dir()):
        images = [path for path in sorted(class_folder.rglob("*")) if _is_image(path, folder)]
        if not images:
            raise DataError(f"the class folder {class_folder} holds no images; fill or remove it")
        files += [
            LabelledFile(path, path.relative_to(folder).as_posix(), class_folder.name)
            for path in images
        ]
    if not files:
        raise DataError(
            f"{folder} holds neither a folder of images for each class nor a CSV; add one of them"
        )
    return files


def _is_image(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _described_files(table: Path) -> list[LabelledFile]:
    labels = _read_labels(table)
    base = _image_folder(table, labels)
    return [
        LabelledFile(base / name, (base / name).relative_to(table.parent).as_posix(), label)
        for name, label in sorted(labels.items())
    ]


def _read_labels(table: Path) -> dict[str, str]:
    """The CSV's labels by file name; a file listed twice with one label counts once."""
    try:
        rows = pd.read_csv(table, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # pandas' parsing and decoding errors are ValueErrors
        raise DataError(f"{table} cannot be read as a CSV: {_one_line(error)}") from error
    rows.columns = rows.columns.str.strip()
    for column in ("filename", "label"):
        if column not in rows.columns:
            existing = ", ".join(rows.columns)
            raise DataError(f"{table} has no column {column!r}, it has {existing}; rename one")
    if rows.empty:
        raise DataError(f"{table} lists no images; add rows of filename,label")
    labels: dict[str, str] = {}
    for line, (raw, label) in enumerate(
        zip(rows["filename"].str.strip(), rows["label"].str.strip(), strict=True), start=2
    ):
        if not raw or not label:
            raise DataError(f"{table} has no filename or no label in line {line}; complete it")
        name = _inner_path(raw, table)
        if labels.setdefault(name, label) != label:
            raise DataError(
                f"{table} gives {name} two labels, {labels[name]} and {label}; keep one of them"
            )
    return labels


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _inner_path(raw: str, table: Path) -> str:
    """The file name with forward slashes, refused if it could lead out of the folder."""
    # Windows' reading of a path knows both slashes and drives
    path = PureWindowsPath(raw)
    if path.anchor or ".." in path.parts:
        raise DataError(
            f"{table} names {raw!r}, which leads out of its folder; "
            "put the image into the folder and name it from there"
        )
    return path.as_posix()


def _image_folder(table: Path, labels: Iterable[str]) -> Path:
    """Where the files lie: beside the CSV, in a folder named as it, or in any other one."""
    names = list(labels)
    home = table.parent
    others = [path for path in _visible(home) if path.is_dir() and path.name != table.stem]
    preferred = [home, home / table.stem]
    missing = {
        folder: [name for name in names if not (folder / PurePosixPath(name)).is_file()]
        for folder in (*preferred, *others)
    }
    for folder in preferred:
        if not missing[folder]:
            return folder
    complete = [folder for folder in others if not missing[folder]]
    if len(complete) > 1:
        folders = " and ".join(folder.name for folder in complete)
        raise DataError(
            f"the files of {table} are in {folders} alike; write the folder into its filenames"
        )
    if complete:
        return complete[0]
    fullest = min(missing, key=lambda folder: len(missing[folder]))
    absent = missing[fullest]
    raise DataError(
        f"{len(absent)} of the {len(names)} images of {table} are not in {fullest}, "
        f"the first is {sorted(absent)[0]}; add them or remove their rows"
    )


def _require_classes(files: list[LabelledFile], source: Path) -> None:
    counts = Counter(file.label for file in files)
    if len(counts) < 2:
        raise DataError(
            f"{source} has one class only ({next(iter(counts))}); add images of a second one"
        )
    for label, count in sorted(counts.items()):
        if count < 2:
            raise DataError(
                f"the class {label} of {source} has a single image; "
                "add another, for training and validation need one each"
            )
