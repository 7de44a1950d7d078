"""Reads images and labels from Parquet files, as Hugging Face stores them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gradflow.data.label_json import no_column
from gradflow.data.labelled_files import LabelledFile, Reading, Side, as_text, role_of, visible
from gradflow.data.notes import Notes
from gradflow.errors import DataError
from gradflow.runs.format.limits import LONGEST_NAME, require_memory

_IMAGE_COLUMNS, _LABEL_COLUMNS = ("image", "img"), ("label", "labels")
_ROWS_AT_ONCE = 64


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files at the top of `folder`, otherwise in its folder `data`."""
    for place in (folder, folder / "data"):
        if place.is_dir():
            found = [path for path in visible(place) if path.suffix.lower() == ".parquet"]
            if found:
                return found
    return []


def side_of_parquet(path: Path) -> str | None:
    """The side of a split that begins the name of a file, e.g. train in train-00000-of-00001."""
    begin = re.split(r"[-_.]", path.name)[0]
    return begin if role_of(begin) else None


def files_in_parquet(
    path: Path, root: Path, reading: Reading, notes: Notes, side: Side | None = None
) -> list[LabelledFile]:
    """The images in the Parquet file `path`, with their content, in the order of the rows.

    The image is a column of bytes, or of `{bytes, path}`; the label text, or a whole number, whose
    name Hugging Face's metadata may hold.

    Raises:
        DataError: The file is damaged, lacks a column, or has one of another type.
        TooLargeError: Its images would take more memory than allowed.
    """
    name = as_text(path.relative_to(root).as_posix())
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            image = _column(path, schema, reading.columns.get("image"), _IMAGE_COLUMNS)
            label = _column(path, schema, reading.columns.get("label"), _LABEL_COLUMNS)
            _require_types(path, schema, image, label)
            groups = (file.metadata.row_group(at) for at in range(file.num_row_groups))
            require_memory(str(path), sum(group.total_byte_size for group in groups))
            names = _class_names(schema, label)
            found = []
            for row, (content, value) in enumerate(_rows(file, image, label)):
                said = _label(value, names)
                if content is None or said is None:
                    what = "an image" if content is None else "a label"
                    notes.bad(
                        f"rows of {path} without {what}",
                        f"row {row}",
                        f"{path} has no {what.split()[1]} in row {row}; complete it",
                    )
                    continue
                if len(said) > LONGEST_NAME:
                    raise DataError(
                        f"{path} has a label of {len(said):,} characters in row {row}, more than "
                        f"the {LONGEST_NAME:,} that a class may have; shorten it"
                    )
                own = f"{name}#{row}"
                found.append(LabelledFile(Path(own), own, said, 1, side, content))
            return found
    except (pa.ArrowException, OSError, ValueError) as error:
        text = " ".join(str(error).split())[:200].rstrip(".")
        raise DataError(f"{path} cannot be read as Parquet ({text}); download it again") from error


def _column(path: Path, schema: Any, given: str | None, usual: tuple[str, ...]) -> str:
    wanted = (given,) if given else usual
    found = next((name for name in wanted if schema.names.count(name) == 1), None)
    if found is None:
        raise no_column(path, wanted[0], schema.names)
    return found


def _require_types(path: Path, schema: Any, image: str, label: str) -> None:
    kind = schema.field(image).type
    inner = kind.field("bytes").type if _has_bytes(kind) else kind
    if not (pa.types.is_binary(inner) or pa.types.is_large_binary(inner)):
        raise DataError(
            f"{path} has no image bytes in the column {image!r}, but {kind}; "
            "say which column has them with --columns image=NAME"
        )
    kind = schema.field(label).type
    if not (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)
    ):
        raise DataError(
            f"{path} has neither text nor whole numbers in the column {label!r}, but {kind}; "
            "say which column has the labels with --columns label=NAME"
        )


def _has_bytes(kind: Any) -> bool:
    return bool(pa.types.is_struct(kind)) and kind.get_field_index("bytes") >= 0


def _rows(file: Any, image: str, label: str) -> Iterator[tuple[bytes | None, Any]]:
    for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[image, label]):
        images = batch.column(batch.schema.get_field_index(image))
        if pa.types.is_struct(images.type):
            images = images.field("bytes")
        labels = batch.column(batch.schema.get_field_index(label))
        yield from zip(images.to_pylist(), labels.to_pylist(), strict=True)


def _class_names(schema: Any, label: str) -> list[str]:
    """The names of the classes by number in Hugging Face's metadata; empty if it has none."""
    content = (schema.metadata or {}).get(b"huggingface", b"")
    try:
        names = json.loads(content)["info"]["features"][label]["names"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return []
    return names if isinstance(names, list) and all(isinstance(at, str) for at in names) else []


def _label(value: Any, names: list[str]) -> str | None:
    """The label as text; None if the row has none. -1 stands for none in Hugging Face's sets."""
    if value is None or (isinstance(value, int) and value < 0):
        return None
    text = str(value)
    if isinstance(value, int) and names:
        if value >= len(names):
            return None
        text = names[value]
    return text.strip() or None
