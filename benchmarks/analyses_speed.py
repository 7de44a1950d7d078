"""Measures time and memory of all analyses, on an experiment and on an enlarged copy of it.

    python benchmarks/analyses_speed.py runs/EXPERIMENT

The enlarged copy has five seeds and fifty epochs of each network. It repeats the tables of the
experiment's runs, with numbers scaled at random by a few percent so that no seed or epoch equals
another. Each experiment is analysed in its own process, which reads every table from the disk.
"""

import multiprocessing
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from gradflow.runs.format.schema import TABLES
from gradflow.runs.reading.run import Run, open_experiment
from gradflow.runs.writing.run import ExperimentWriter, RunWriter

SEEDS, EPOCHS = 5, 50
JITTER = 0.03
KEPT = ("seed", "schema_version", "kind", "created", "status", "ended")


def enlarge(source: Path, target: Path) -> None:
    """Write an experiment of `SEEDS` seeds and `EPOCHS` epochs a network to `target`."""
    experiment = open_experiment(source)
    runs = [experiment.of_network(network)[0] for network in experiment.networks]
    names = [f"{run.network}-seed{seed}" for run in runs for seed in range(SEEDS)]
    description = {key: value for key, value in experiment.description.items() if key not in KEPT}
    ExperimentWriter(target, description | {"runs": names})
    for run in runs:
        for seed in range(SEEDS):
            _write(run, seed, target / f"{run.network}-seed{seed}")


def _write(run: Run, seed: int, folder: Path) -> None:
    description = {key: value for key, value in run.description.items() if key not in KEPT}
    writer = RunWriter(folder, description | {"seed": seed})
    shutil.copy(run.folder / "layers.parquet", folder)
    generator = np.random.default_rng(seed)
    epochs, steps = int(run.epochs["epoch"].max()), int(run.epochs["step"].max()) + 1
    for name in TABLES:
        frame = run.table(name)
        if name == "layers" or frame.empty:
            continue
        once = "epoch" not in frame.columns
        for repeat in range(1 if once else EPOCHS // epochs):
            part = frame if once else _shifted(frame, repeat, epochs, steps, generator)
            columns = {
                column: part[column].astype(object).where(part[column].notna(), None).tolist()
                for column in part
            }
            writer.append(name, columns, repeat * steps, (repeat + 1) * steps - 1)
    writer.close("complete")


def _shifted(
    frame: pd.DataFrame, repeat: int, epochs: int, steps: int, generator: np.random.Generator
) -> pd.DataFrame:
    """Move the rows to a later part of the run, and scale their real numbers a little at random."""
    part = frame.assign(epoch=frame["epoch"] + repeat * epochs)
    if "step" in part:
        part["step"] += repeat * steps
    keys = {quantity.name for table in TABLES.values() for quantity in table.keys}
    for name in part.select_dtypes("float").columns.difference(list(keys)):
        part[name] *= np.exp(JITTER * generator.standard_normal(len(part)))
        if name.endswith("accuracy"):
            part[name] = part[name].clip(upper=1)
    return part


def _analyse(folder: str) -> tuple[float, int, list[str]]:
    """Seconds, peak resident memory in KiB (on Linux), and analyses that failed."""
    import resource  # noqa: PLC0415  (not on Windows)

    from analyses.registry import run_all  # noqa: PLC0415  (its time counts)

    start = time.perf_counter()
    outcomes = run_all(open_experiment(folder))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return seconds, peak, [f"{one.key}: {one.failure}" for one in outcomes if one.failure]


def main(folder: Path) -> None:
    """Print a line for the experiment and one for the enlarged copy."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as temporary:
        large = Path(temporary) / "experiment"
        enlarge(folder, large)
        for name, path in (("as recorded", folder), (f"{SEEDS} seeds, {EPOCHS} epochs", large)):
            with context.Pool(1) as pool:
                seconds, peak, failed = pool.apply(_analyse, (str(path),))
            print(f"| {name} | {seconds:.1f} s | {peak / 2**20:.2f} GiB | {failed or 'none'} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
