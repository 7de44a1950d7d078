"""Sinks chosen by name, as the commands do: `tensorboard`, `wandb`."""

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from gradflow.errors import ConfigurationError
from gradflow.runs.format.limits import require_valid_path
from gradflow.sinks.sink import Sink

_CLASSES = {
    "tensorboard": "TensorBoard",
    "wandb": "WandB",
    "mlflow": "MLflow",
    "trackio": "Trackio",
    "aim": "Aim",
    "csv": "CSV",
}
NAMES = tuple(_CLASSES)


def require_known(names: Iterable[str], option: str) -> None:
    """Raise `ConfigurationError`, which names the option, if one of `names` is no sink's."""
    for name in names:
        if name not in NAMES:
            known = ", ".join(NAMES)
            raise ConfigurationError(f"{option} knows no {name}: name one or several of {known}")


def sink_by_name(name: str, place: str | Path | None, **common: Any) -> Sink:
    """The sink `name`, one of `NAMES`; its library is looked up, but not imported.

    Args:
        name: such as `wandb`.
        place: the folder of TensorBoard, the file of CSV, the project of W&B and Trackio, the
            tracking address of MLflow, the repository of Aim; None for that which each takes.
        common: what `Sink` takes.

    Raises `ConfigurationError` if the library is missing or too old.
    """
    sink: Sink = getattr(import_module("gradflow.sinks"), _CLASSES[name])(place, **common)
    return sink


def own_place(name: str, place: str | None, *within: str) -> str | Path | None:
    """The place of one of several runs: on the disk, each has the folder or file `within`."""
    if place is None or name not in ("tensorboard", "csv"):
        return place
    path = Path(place, *within)
    return path if name == "tensorboard" else path.with_name(f"{path.name}.csv")


def require_no_events(folder: Path, option: str) -> None:
    """Raise `ConfigurationError` if TensorBoard would show other numbers of ours in `folder`."""
    require_valid_path(folder)
    if any(folder.glob("events.out.tfevents.*.gradflow")):
        raise ConfigurationError(
            f"{folder} has gradflow's event files already, which TensorBoard would show as well: "
            f"remove it, or name another folder with {option}"
        )
