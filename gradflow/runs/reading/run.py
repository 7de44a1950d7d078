"""Reads run folders as pandas frames, without loading torch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from gradflow.errors import RunError, printable
from gradflow.runs.format.description import read_description
from gradflow.runs.format.files import EXPERIMENT_FILE, RUN_FILE
from gradflow.runs.format.limits import (
    TooLargeError,
    require_inside,
    require_valid_path,
)
from gradflow.runs.format.manifest import Manifest, read_manifest
from gradflow.runs.format.parts import Part
from gradflow.runs.format.schema import TABLES
from gradflow.runs.reading.part import read_layer, read_part
from gradflow.runs.reading.parts import read_parts

_ATTEMPTS = 3
# Options of `train_and_trace` since its first version: it records all of its options.
_ITS_OPTIONS = {"models", "validation_fraction", "trace_every", "recalibrate"}


@dataclass(frozen=True)
class Run:
    """One recorded run: its description and its tables.

    A table that was not recorded is an empty frame with the columns of the schema. Every table
    raises `RunError`, naming the file, if a part is damaged. `label` replaces the name of the run
    if another run has the same name.
    """

    folder: Path
    description: dict[str, Any] = field(repr=False)
    _tables: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False, compare=False)
    label: str = ""

    def __repr__(self) -> str:
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"Run({str(self.folder)!r}, network {self.network!r}{seed})"

    def _repr_html_(self) -> str:
        from gradflow.runs.reading.cards import run_card  # noqa: PLC0415 - for notebooks only

        return run_card(self)

    @property
    def name(self) -> str:
        """Its label, or the name of its folder, e.g. `plain34-seed2025`."""
        return self.label or self.folder.resolve().name

    @property
    def is_of_command(self) -> bool:
        """Whether `train_and_trace` made it.

        An owner's configuration may well have "models" among its keys, but not all those of ours.
        """
        return self.configuration.keys() >= _ITS_OPTIONS

    @property
    def is_own(self) -> bool:
        """Whether it was recorded in a training loop of its user's own."""
        return "tracing" in self.description and not self.is_of_command

    @property
    def network(self) -> str:
        """The name of the traced network, e.g. `plain34`."""
        return str(self.description.get("network", self.name))

    @property
    def seed(self) -> int | None:
        """The seed of the run; None if it was not recorded."""
        seed: int | None = self.description.get("seed")
        return seed

    @property
    def configuration(self) -> dict[str, Any]:
        """The configuration of the run; empty if none was given."""
        return dict(self.description.get("configuration") or {})

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of their indices; empty if unknown."""
        return [str(name) for name in self.description.get("classes") or []]

    @property
    def layers(self) -> pd.DataFrame:
        """One row per layer, in order of execution."""
        return self.table("layers")

    @property
    def epochs(self) -> pd.DataFrame:
        """One row per epoch: the scalars given to `end_epoch`."""
        return self.table("epochs")

    @property
    def activations(self) -> pd.DataFrame:
        """One row per (epoch, step, layer): statistics of the layer's output."""
        return self.table("activations")

    @property
    def gradients(self) -> pd.DataFrame:
        """One row per (epoch, step, layer): statistics of the gradient of that output."""
        return self.table("gradients")

    @property
    def activation_histograms(self) -> pd.DataFrame:
        """One row per (epoch, step, layer): see `gradflow.runs.reading.magnitudes`."""
        return self.table("activation_histograms")

    @property
    def gradient_histograms(self) -> pd.DataFrame:
        """One row per (epoch, step, layer): see `gradflow.runs.reading.magnitudes`."""
        return self.table("gradient_histograms")

    @property
    def parameters(self) -> pd.DataFrame:
        """One row per (epoch, step, parameter)."""
        return self.table("parameters")

    @property
    def junctions(self) -> pd.DataFrame:
        """One row per (epoch, step, residual addition)."""
        return self.table("junctions")

    @property
    def steps(self) -> pd.DataFrame:
        """One row per recorded step: its loss scale, and the norm of the whole gradient."""
        return self.table("steps")

    @property
    def modes(self) -> pd.DataFrame:
        """One row per layer and change of its mode: training or evaluation."""
        return self.table("modes")

    @property
    def positions(self) -> pd.DataFrame:
        """One row per (epoch, step, layer, tensor, bin of positions in a sequence)."""
        return self.table("positions")

    @property
    def groups(self) -> pd.DataFrame:
        """One row per (epoch, step, group): totals of the groups that the tracer was given."""
        return self.table("groups")

    @property
    def images(self) -> pd.DataFrame:
        """One row per image: its name, label and subset."""
        return self.table("images")

    @property
    def predictions(self) -> pd.DataFrame:
        """One row per (epoch, validation image)."""
        return self.table("predictions")

    @property
    def recalibration(self) -> pd.DataFrame:
        """Like `predictions`, with batch-norm statistics re-estimated on the training images."""
        return self.table("recalibration")

    def table(self, name: str) -> pd.DataFrame:
        """The table `name` of the schema, all parts in order of step; read only once."""
        if name not in self._tables:
            self._tables[name] = _with_missing_columns(_to_frame(name, self._read(name)), name)
        return self._tables[name]

    def has_read(self, name: str) -> bool:
        """Whether the table `name` is in memory already."""
        return name in self._tables

    def arrow(self, name: str) -> pa.Table:
        """The table `name` as it was recorded, in which a missing value is null and nan is nan.

        It has no columns if the table was not recorded. Raises what every table raises.
        """
        with _fitting_together(name):
            return _joined(self._read(name))

    def layer_history(self, table: str, layer: str, quantities: Sequence[str]) -> pd.DataFrame:
        """The rows of one layer: epoch, step and `quantities`, in order of step.

        Reads only these columns of this layer's rows. It is quick even if the whole table would not
        fit into memory.

        Raises `RunError` if `table` has no layers, or a part is damaged.
        """
        if "layer" not in {quantity.name for quantity in TABLES[table].columns}:
            raise RunError(f"the table {table} has no rows for single layers")
        columns = ["epoch", "step", *quantities]

        def read(manifest: Manifest, part: Part) -> pa.Table:
            return read_layer(manifest, part, columns, layer)

        return _to_frame(table, self._read(table, read)).reindex(columns=columns)

    def _read(
        self, name: str, read: Callable[[Manifest, Part], pa.Table] = read_part
    ) -> list[pa.Table]:
        """The result of `read` for each part of the table `name`."""
        for attempt in range(_ATTEMPTS):
            if not self.folder.is_dir():
                raise RunError(f"the run folder {self.folder} is no longer there: it was removed")
            manifest = read_manifest(self.folder)
            try:
                return read_parts(manifest, name, read)
            except TooLargeError:
                raise
            except RunError:
                # A writer may have replaced the part since the manifest was read.
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")


@dataclass(frozen=True)
class Experiment:
    """Runs made together (networks x seeds), or a single run taken as an experiment of one.

    `members` are the experiments that a comparison put together; otherwise empty.
    """

    folder: Path
    description: dict[str, Any] = field(repr=False)
    runs: tuple[Run, ...]
    members: tuple["Experiment", ...] = ()

    def __repr__(self) -> str:
        runs = "1 run" if len(self.runs) == 1 else f"{len(self.runs)} runs"
        networks = printable(", ".join(self.networks))
        return f"Experiment({str(self.folder)!r}, {runs} of {networks})"

    def _repr_html_(self) -> str:
        from gradflow.runs.reading.cards import experiment_card  # noqa: PLC0415 - for notebooks

        return experiment_card(self)

    @property
    def networks(self) -> list[str]:
        """The names of the networks, in the order of the runs."""
        return list(dict.fromkeys(run.network for run in self.runs))

    @property
    def is_own(self) -> bool:
        """Whether all its runs were recorded in training loops of their user's own."""
        return all(run.is_own for run in self.runs)

    def of_network(self, network: str) -> list[Run]:
        """The runs of `network`, one per seed."""
        return [run for run in self.runs if run.network == network]


def open_run(folder: str | Path) -> Run:
    """Open the run in `folder`.

    Raises `RunError` if the folder holds no run, or one of a newer schema.
    """
    folder = Path(folder)
    require_valid_path(folder)
    if (folder / EXPERIMENT_FILE).exists():
        raise RunError(
            f"{folder} holds an experiment of several runs: "
            "open it with open_experiment, or name one of its folders"
        )
    return Run(folder, read_description(folder, RUN_FILE))


def open_experiment(folder: str | Path) -> Experiment:
    """Open the experiment in `folder`; a folder that holds a single run is an experiment of one.

    Runs that have not started yet are left out.

    Raises `RunError` if the folder holds neither, no run has started, the schema is newer, or a run
    lies outside the folder.
    """
    folder = Path(folder)
    require_valid_path(folder)
    if not (folder / EXPERIMENT_FILE).exists():
        run = open_run(folder)
        return Experiment(folder, run.description, (run,))
    description = read_description(folder, EXPERIMENT_FILE)
    paths = [folder / name for name in description.get("runs") or []]
    for path in paths:
        require_valid_path(path)
    started = [path for path in paths if (path / RUN_FILE).exists()]
    for path in started:
        require_inside(folder, path)
    if not started:
        raise RunError(f"the experiment in {folder} has no run yet: train it first")
    return Experiment(folder, description, tuple(open_run(path) for path in started))


def _to_frame(name: str, tables: list[pa.Table]) -> pd.DataFrame:
    if not tables:
        # Names are objects also where there are none, so that frames answer as if they had rows.
        types = {
            one.name: "object" if one.dtype == "str" else "float64" for one in TABLES[name].columns
        }
        return pd.DataFrame({key: pd.Series([], dtype=kind) for key, kind in types.items()})
    with _fitting_together(name):
        return _joined(tables).to_pandas()


def _joined(tables: list[pa.Table]) -> pa.Table:
    # A scalar may be a whole number in one epoch and a fraction in another.
    return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})


@contextmanager
def _fitting_together(name: str) -> Iterator[None]:
    try:
        yield
    except pa.ArrowException as error:
        raise RunError(f"the parts of the table {name} do not fit together: {error}") from error


def _with_missing_columns(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """`frame` with empty columns added for those that the run's older gradflow did not record."""
    known = [quantity.name for quantity in TABLES[name].columns]
    if set(known) <= set(frame.columns):
        return frame
    return frame.reindex(columns=[*known, *frame.columns.difference(known, sort=False)])
