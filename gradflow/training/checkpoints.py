"""The weights that a run keeps: those of its best epoch, and, if asked for, of every epoch."""

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

_ZIP = b"PK\3\4"
_STORAGES = ["BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short"]
# What `torch.save` builds a state from. PyTorch would call more as it loads, `bytearray` among it,
# which takes as much memory as a number in the file says.
_BUILT_FROM = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    *(f"torch {kind}Storage" for kind in _STORAGES),
}


def path_of_epoch(run_folder: Path, epoch: int) -> Path:
    """Where the weights at the end of `epoch` are, if those of every epoch are kept."""
    return run_folder / FOLDER / f"epoch-{epoch:04d}.pt"


def save(path: Path, model: nn.Module, **entries: Any) -> None:
    """Write the weights of `model`, on the CPU, with `entries` beside them, whole.

    The run's manifest lists `path`, which is its best epoch's or one of `path_of_epoch`.

    Raises `RunError` where it cannot be written.
    """
    state = {name: value.cpu() for name, value in model.state_dict().items()}
    make_folder(path.parent)
    data = serialized({"state_dict": state, **entries})
    write_listed(_run_folder(path), path, lambda temporary: write(temporary, data))


def serialized(content: Mapping[str, Any]) -> memoryview:
    """`content` as `torch.save` writes it; in memory, as that hides what a full disk answers."""
    buffer = BytesIO()
    torch.save(dict(content), buffer)
    return buffer.getbuffer()


def deserialized(data: bytes) -> Any:
    """What `serialized` made of it; never more than it takes itself, and no code is run.

    Raises errors of pickle, zip and torch, each their own, where it is anything else.
    """
    if not data.startswith(_ZIP):  # else PyTorch reads it in a way of its own, whatever follows
        raise ValueError("it is no archive, which weights always are")
    with zipfile.ZipFile(BytesIO(data)) as archive:
        if sum(member.file_size for member in archive.infolist()) > len(data):
            raise ValueError("it is compressed, which weights never are")
        names = [name for name in archive.namelist() if name.lower().endswith("data.pkl")]
        if len(names) != 1:
            raise ValueError("it does not hold one state, which weights always do")
        for code, argument, _ in pickletools.genops(archive.read(names[0])):
            if code.name == "GLOBAL" and argument not in _BUILT_FROM:
                raise ValueError(f"it holds {argument}, which weights never do")
    return torch.load(BytesIO(data), map_location="cpu", weights_only=True)


def write(path: Path, data: memoryview) -> None:
    """Write `data` to `path`; raises `OSError` where that fails."""
    path.write_bytes(data)


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote: `state_dict`, `epoch` and the other entries.

    Raises `RunError` where there is no such file, it is not what the run's manifest says, outside
    of the run's folder, larger than a file of a run may be, or holds anything but weights.
    """
    require_inside(_run_folder(path), path)
    require_regular_file(path)
    try:
        require_memory(f"the file {path}", path.stat().st_size)
        data = path.read_bytes()
        if read_manifest(_run_folder(path)).contradicts(path, data):
            raise ValueError("its checksum is another")
        content = deserialized(data)
    except FileNotFoundError as error:
        raise RunError(f"there are no weights at {path}") from error
    except TooLargeError:
        raise
    except Exception as error:  # pickle, zip and torch each have errors of their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"the weights at {path} cannot be read: {reason}") from error
    if not isinstance(content, dict) or not _is_complete(content):
        raise RunError(f"{path} was not written by gradflow: it holds no weights with their epoch")
    return content


def restore(path: Path, model: nn.Module) -> None:
    """Put the weights at `path` into `model`.

    Raises `RunError` where they cannot be read, or are another network's.
    """
    state = load(path)["state_dict"]
    with restoring(f"{path}"):
        model.load_state_dict(state)


def available(run_folder: Path) -> dict[int, Path]:
    """By epoch, the weights that the run in `run_folder` kept; only the best where no others are.

    Raises `RunError` where there are none.
    """
    paths = sorted((run_folder / FOLDER).glob("epoch-*.pt"))
    numbered = {path.stem.removeprefix("epoch-"): path for path in paths}
    if kept := {int(number): path for number, path in numbered.items() if number.isdecimal()}:
        return kept
    best = run_folder / BEST
    return {int(load(best)["epoch"]): best}


def _is_complete(content: dict[Any, Any]) -> bool:
    """Whether there are weights in `content`, and the number of their epoch."""
    return isinstance(content.get("state_dict"), dict) and isinstance(content.get("epoch"), int)


def _run_folder(path: Path) -> Path:
    return path.parent.parent if path.parent.name == FOLDER else path.parent
