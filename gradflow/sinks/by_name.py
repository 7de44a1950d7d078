"""Sinks chosen by name, as the commands do: `tensorboard`, `wandb`."""

from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from gradflow.errors import ConfigurationError
from gradflow.runs.format.limits import require_valid_path
from gradflow.sinks.names import DEFAULT_QUANTITIES
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


def sinks_of_run(
    chosen: Sequence[str],
    folder: Path,
    *,
    quantities: Sequence[str] = (),
    every: Literal["step", "epoch"] = "step",
    new: bool = False,
) -> list[Sink]:
    """The sinks of the run in `folder`, which is one of an experiment, as `--sinks` chooses them.

    In a place on the disk that is named, each run has a folder or file of its own.

    Args:
        chosen: `NAME` or `NAME=PLACE`, or `none` alone.
        folder: the folder of the run, within that of its experiment.
        quantities: patterns; empty for the usual choice.
        every: as `Sink` takes it.
        new: that nothing of the experiment may be in these places yet.

    Raises `ConfigurationError` if there is no such sink, if its library is missing or too old, or
    if no quantity fits.
    """
    parts = [one.partition("=") for one in chosen]
    names = [name for name, _, _ in parts]
    if names == ["none"]:
        return []
    if "none" in names:
        raise ConfigurationError(
            f"--sinks none stands alone, but was given with others: {list(chosen)}; leave out "
            "none, or the others"
        )
    require_known(names, "--sinks")
    if len(set(names)) < len(names):
        raise ConfigurationError(f"--sinks names a sink twice: {list(chosen)}")
    sinks = []
    for name, equals, given in parts:
        if equals and not given:
            raise ConfigurationError(f"--sinks has nothing after {name}=: name a place, or leave =")
        place = own_place(name, given or None, folder.parent.resolve().name, folder.name)
        if new and name == "tensorboard" and place is not None:
            require_no_events(Path(place), "--sinks tensorboard=FOLDER")
        sinks.append(
            sink_by_name(name, place, quantities=quantities or DEFAULT_QUANTITIES, every=every)
        )
    return sinks


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
