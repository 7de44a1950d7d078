"""Saves and loads the state of a training at the end of an epoch, from which it can be resumed.

state-<step>.pt  weights, optimizer, tracer, random state, and the last validation results
state.json       name and checksum of the valid state file; written last, as the commit

A complete run keeps neither file.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gradflow.hooks.tracer import Tracer
from gradflow.runs.format.files import (
    STATE_FILE,
    STATE_PATTERN,
    remove,
    write_atomically,
    write_json,
)
from gradflow.runs.reading.state_file import damaged_state_error, read_state
from gradflow.training import checkpoints
from gradflow.training.evaluation import Evaluation


@dataclass
class TrainingState:
    """The state of a training that passes from one epoch to the next.

    Fields:
        model, optimizer, tracer: the live objects; each is saved by its `state_dict`.
        best: the highest validation accuracy so far.
        validation: the evaluation of the last epoch; None before the first.
        scaler: what scales the loss of a training in fp16; saved by its `state_dict` too.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    tracer: Tracer
    best: float
    validation: Evaluation | None
    scaler: torch.amp.GradScaler | None

    def state_dict(self) -> dict[str, Any]:
        """All fields and the global random state, as tensors, numbers, names and lists of these."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "tracer": self.tracer.state_dict(),
            "best": self.best,
            "validation": None if self.validation is None else dict(vars(self.validation)),
            "random": random_state(),
        } | ({} if self.scaler is None else {"scaler": self.scaler.state_dict()})


def random_state() -> dict[str, Any]:
    """The states of PyTorch's global generators, of the CPU and of every CUDA device in use."""
    # Asking for the CUDA states would start the devices, which a training on the CPU does not need.
    started = torch.cuda.is_initialized()
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if started else [],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Set PyTorch's global generators to a `state` that `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    # A run may be resumed on a machine with other devices; those keep their own random states.
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def saved_validation(state: Mapping[str, Any], device: torch.device) -> Evaluation | None:
    """The last evaluation saved in `state`, on `device`."""
    kept: dict[str, Any] | None = state["validation"]
    if kept is None:
        return None
    placed: dict[str, Any] = {
        name: value.to(device) if isinstance(value, Tensor) else value
        for name, value in kept.items()
    }
    return Evaluation(**placed)


def save_state(folder: Path, state: Mapping[str, Any], step: int) -> None:
    """Write `state`, which is that before `step`, then remove older states."""
    data = checkpoints.serialize(state)
    name = f"state-{step:010d}.pt"
    write_atomically(folder / name, lambda path: checkpoints.write(path, data))
    digest = hashlib.sha256(data).hexdigest()
    write_json(folder / STATE_FILE, {"file": name, "sha256": digest, "step": step})
    for path in folder.glob(STATE_PATTERN):
        if path.name != name:
            remove(path)


def load_state(folder: Path) -> dict[str, Any] | None:
    """The saved state of the run in `folder`; None if no state was saved.

    Raises `RunError` if the state is damaged.
    """
    data = read_state(folder)
    if data is None:
        return None
    try:
        state = checkpoints.deserialize(data)
    except Exception as error:  # pickle, zip and torch each have errors of their own
        raise damaged_state_error(
            folder, str(error).splitlines()[0] if str(error) else "?"
        ) from error
    if not isinstance(state, dict):
        raise damaged_state_error(folder, "it holds no state")
    return state


def discard_state(folder: Path) -> None:
    """Remove the state of a complete run, which needs none."""
    remove(folder / STATE_FILE)
    for path in folder.glob(STATE_PATTERN):
        remove(path)
