"""Saves and loads a run's weights: those of the best epoch and, if asked for, of every epoch."""

import pickletools
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradflow.errors import RunError
from gradflow.runs.format.files import BEST_FILE, CHECKPOINTS_FOLDER, make_folder
from gradflow.runs.format.limits import (
    TooLargeError,
    require_inside,
    require_memory,
    require_regular_file,
    restoring,
)
from gradflow.runs.format.manifest import read_manifest, write_listed

BEST = BEST_FILE
FOLDER = CHECKPOINTS_FOLDER

_ZIP_SIGNATURE = b"PK\3\4"
_STORAGE_TYPES = [
    "BFloat16",
    "Bool",
    "Byte",
    "Char",
    "Double",
    "Float",
    "Half",
    "Int",
    "Long",
    "Short",
]
# The only names that a file written by `torch.save` needs. PyTorch would load more, e.g.
# `bytearray`, which allocates as much memory as a number in the file says.
_ALLOWED_GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    *(f"torch {kind}Storage" for kind in _STORAGE_TYPES),
}


def epoch_checkpoint_path(run_folder: Path, epoch: int) -> Path:
    """The path of the weights at the end of `epoch`, if the run keeps those of every epoch."""
    return run_folder / FOLDER / f"epoch-{epoch:04d}.pt"


def save(path: Path, model: nn.Module, **entries: Any) -> None:
    """Write the weights of `model`, moved to the CPU, and `entries` to `path`, all or nothing.

    `path` is that of the best epoch or one of `epoch_checkpoint_path`; the run's manifest lists it.

    Raises `RunError` if the file cannot be written.
    """
    state = {name: value.cpu() for name, value in model.state_dict().items()}
    make_folder(path.parent)
    data = serialize({"state_dict": state, **entries})
    write_listed(_run_folder(path), path, lambda temporary: write(temporary, data))


def serialize(content: Mapping[str, Any]) -> memoryview:
    """The bytes that `torch.save` would write. On a full disk `torch.save` hides the error."""
    buffer = BytesIO()
    torch.save(dict(content), buffer)
    return buffer.getbuffer()


def deserialize(data: bytes) -> Any:
    """The content that `serialize` wrote. Runs no code, and takes no more memory than `data`.

    Raises an error of pickle, zip or torch, or `ValueError`, for any other bytes.
    """
    if not data.startswith(_ZIP_SIGNATURE):  # PyTorch would read such a file in its old format
        raise ValueError("it is not a zip archive, but weights always are")
    with zipfile.ZipFile(BytesIO(data)) as archive:
        if sum(member.file_size for member in archive.infolist()) > len(data):
            raise ValueError("it is compressed, but weights never are")
        names = [name for name in archive.namelist() if name.lower().endswith("data.pkl")]
        if len(names) != 1:
            raise ValueError("it does not hold exactly one state, but weights always do")
        for code, argument, _ in pickletools.genops(archive.read(names[0])):
            if code.name == "GLOBAL" and argument not in _ALLOWED_GLOBALS:
                raise ValueError(f"it holds {argument}, but weights never do")
    return torch.load(BytesIO(data), map_location="cpu", weights_only=True)


def write(path: Path, data: memoryview) -> None:
    """Write `data` to `path`. Raises `OSError` if that fails."""
    path.write_bytes(data)


def load(path: Path) -> dict[str, Any]:
    """The content that `save` wrote: `state_dict`, `epoch` and the other entries.

    Raises `RunError` if the file is missing, contradicts the run's manifest, lies outside the
    run's folder, is larger than a file of a run may be, or holds anything but weights.
    """
    require_inside(_run_folder(path), path)
    require_regular_file(path)
    try:
        require_memory(f"the file {path}", path.stat().st_size)
        data = path.read_bytes()
        if read_manifest(_run_folder(path)).contradicts(path, data):
            raise ValueError("its checksum is not the one in the manifest")
        content = deserialize(data)
    except FileNotFoundError as error:
        raise RunError(f"there are no weights at {path}") from error
    except TooLargeError:
        raise
    except Exception as error:  # pickle, zip and torch each have errors of their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"the weights at {path} cannot be read: {reason}") from error
    if not isinstance(content, dict) or not _is_complete(content):
        raise RunError(f"{path} was not written by gradflow: it lacks weights or their epoch")
    return content


def restore(path: Path, model: nn.Module) -> None:
    """Put the weights at `path` into `model`.

    Raises `RunError` if they cannot be read or belong to another network.
    """
    state = load(path)["state_dict"]
    with restoring(f"{path}"):
        model.load_state_dict(state)


def available(run_folder: Path) -> dict[int, Path]:
    """The paths of the weights of the run in `run_folder`, by epoch; the best epoch's if no others.

    Raises `RunError` if the run kept no weights.
    """
    paths = sorted((run_folder / FOLDER).glob("epoch-*.pt"))
    numbered = {path.stem.removeprefix("epoch-"): path for path in paths}
    if kept := {int(number): path for number, path in numbered.items() if number.isdecimal()}:
        return kept
    best = run_folder / BEST
    return {int(load(best)["epoch"]): best}


def _is_complete(content: dict[Any, Any]) -> bool:
    """Whether `content` holds weights and the number of their epoch."""
    return isinstance(content.get("state_dict"), dict) and isinstance(content.get("epoch"), int)


def _run_folder(path: Path) -> Path:
    return path.parent.parent if path.parent.name == FOLDER else path.parent
