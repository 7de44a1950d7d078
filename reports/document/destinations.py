"""Where else the numbers of the runs were written: TensorBoard, W&B and others, with links.

What `run.json` says of them may come from anybody. A link leads to a page of the web or to a file
beside the report, and its text is where it leads.
"""

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from gradflow.runs.format.limits import LONGEST_NAME
from gradflow.runs.reading.run import Experiment, Run
from reports.document.summary import verbatim
from reports.elements import Destination, Place

_MOST_PLACES, _MOST_ENTRIES, _LONGEST_TEXT = 24, 24, 400
# TensorBoard reads all that is below the folder it is given.
_MOST_LEVELS = 2
_LONGEST_ADDRESS = 2048
# What an address may hold (RFC 3986), without the brackets of numerical hosts.
_ADDRESS = re.compile(r"https?://[A-Za-z0-9\-._~:/?#@!&'()*+,;=%$]+")


def destinations_of(experiment: Experiment, folder: Path) -> tuple[Destination, ...]:
    """Where else the numbers of `experiment` are, for a report that is written into `folder`."""
    groups: dict[tuple[str, str], list[tuple[Run, Mapping[str, Any]]]] = {}
    for run in experiment.runs:
        for entry in (run.description.get("sinks") or [])[:_MOST_ENTRIES]:
            groups.setdefault((_kind(entry), _note(entry)), []).append((run, entry))
    return tuple(
        Destination(
            kind=kind,
            places=_each_place_once(
                place_of(run, entry, folder) for run, entry in of_kind[:_MOST_PLACES]
            ),
            further=max(0, len(of_kind) - _MOST_PLACES),
            note=note,
            commands=_commands(kind, of_kind[:_MOST_PLACES]),
        )
        for (kind, note), of_kind in groups.items()
    )


def _each_place_once(places: Iterable[Place]) -> tuple[Place, ...]:
    """Runs that are in the same place are named together."""
    names: dict[tuple[str, str], list[str]] = {}
    for one in places:
        names.setdefault((one.text, one.link), []).append(one.run)
    return tuple(Place(", ".join(runs), text, link) for (text, link), runs in names.items())


def place_of(run: Run, entry: Mapping[str, Any], folder: Path) -> Place:
    """The place in the entry of a sink, with a link from a report in `folder` if there may be one.

    Without a link the text is that which the entry gives.
    """
    for given in (entry.get("address"), entry.get("place")):
        if address := web_address(given):
            return Place(run.name, address, address)
    if link := _relative_link(run.folder, entry.get("path"), folder):
        return Place(run.name, unquote(link.removeprefix("./")), link)
    return Place(run.name, _text(entry.get("place") or ""), "")


def web_address(given: Any) -> str:
    """`given` if it is the address of a web page, without a name or password in it; else ""."""
    if not isinstance(given, str) or len(given) > _LONGEST_ADDRESS:
        return ""
    try:
        parts = urlsplit(given)
        known = bool(parts.hostname) and (parts.port or 0) >= 0
    except ValueError:
        return ""
    plain = "@" not in parts.netloc
    return given if known and plain and _ADDRESS.fullmatch(given) else ""


def _relative_link(run_folder: Path, path: Any, folder: Path) -> str:
    """The link from a report in `folder` to `path`, which is as seen from the run folder."""
    if not _is_relative(path):
        return ""
    try:
        way = os.path.relpath(run_folder.resolve() / path, folder.resolve())
    except (OSError, ValueError):  # on another drive
        return ""
    link = quote(Path(way).as_posix(), errors="replace")
    return link if link.startswith("../") else f"./{link}"


def _is_relative(path: Any) -> bool:
    return (
        isinstance(path, str)
        and 0 < len(path) <= LONGEST_NAME
        and path.isprintable()
        and "\\" not in path
        and not path.startswith("/")
        and not Path(path).is_absolute()
    )


def _text(value: Any) -> str:
    text = verbatim(value)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]} … (shortened)"


def _kind(entry: Mapping[str, Any]) -> str:
    return _text(entry.get("kind") or "a sink")


def _note(entry: Mapping[str, Any]) -> str:
    """What is to be known about what is there."""
    parts = []
    if entry.get("prefix"):
        parts.append(f"names under {_text(entry['prefix'])}/")
    if entry.get("exported"):
        parts.append("exported afterwards")
    if entry.get("dropped_steps"):
        parts.append(f"without {_text(entry['dropped_steps'])} steps for which it was too slow")
    if entry.get("problem"):
        parts.append(f"not complete: {_text(entry['problem'])}")
    return ", ".join(parts)


def _commands(kind: str, entries: Sequence[tuple[Run, Mapping[str, Any]]]) -> tuple[str, ...]:
    """The commands that show what is on this machine. Of what the run says, only paths are used."""
    local = [(run, entry) for run, entry in entries if not web_address(entry.get("address"))]
    paths = [path for run, entry in local for path in _paths(run, [entry.get("path")])]
    if kind == "TensorBoard":
        return _each(["tensorboard", "--logdir"], _gathered(paths))
    if kind == "Aim":
        return _each(["aim", "up", "--repo"], paths)
    if kind == "MLflow":
        return _each(["mlflow", "ui", "--backend-store-uri"], _stores(local))
    if kind == "W&B":
        parts = [path for run, entry in local for path in _paths(run, _parts(entry))]
        return (shlex.join(["wandb", "sync", *dict.fromkeys(parts)]),) if parts else ()
    if kind == "Trackio":
        given = [entry.get("project") for _, entry in local]
        projects = [one for one in given if isinstance(one, str) and one.isprintable()]
        return _each(["trackio", "show", "--project"], [one for one in projects if one[:1] != "-"])
    return ()


def _stores(local: Iterable[tuple[Run, Mapping[str, Any]]]) -> list[str]:
    """MLflow's stores: a folder, or a file of SQLite."""
    return [
        f"sqlite:///{path}" if str(entry.get("place")).startswith("sqlite:") else path
        for run, entry in local
        for path in _paths(run, [entry.get("path")])
    ]


def _parts(entry: Mapping[str, Any]) -> list[Any]:
    """The folders of a run that W&B wrote offline, one for each process that went on with it."""
    earlier = entry.get("earlier_paths")
    return [*(earlier[:_MOST_PLACES] if isinstance(earlier, list) else []), entry.get("path")]


def _each(words: list[str], values: Iterable[str]) -> tuple[str, ...]:
    return tuple(shlex.join([*words, value]) for value in dict.fromkeys(values))


def _paths(run: Run, recorded: Iterable[Any]) -> list[str]:
    """Paths as seen from the run folder, as this program sees them."""
    seen = [os.path.normpath(run.folder / path) for path in recorded if _is_relative(path)]
    # Nothing that a terminal acts on, and nothing that looks like an option.
    return [f"./{path}" if path.startswith("-") else path for path in seen if path.isprintable()]


def _gathered(paths: list[str]) -> list[str]:
    """The folder that all of `paths` are in, if it is near enough to hold little else."""
    try:
        common = os.path.commonpath(paths)
    except ValueError:  # none, or relative ones and others
        return paths
    levels = [len(Path(path).parts) - len(Path(common).parts) for path in paths]
    return [common] if common and max(levels) <= _MOST_LEVELS else paths
