"""What several analyses read from the frames of a run in the same way."""

from dataclasses import dataclass

import pandas as pd

from analyses.matching import same_images
from analyses.registry import NotApplicableError
from analyses.statistics import wilson_interval
from gradflow.runs.reader import Experiment, Run


def runs_with(experiment: Experiment, table: str, meaning: str) -> list[Run]:
    """The runs that recorded rows in `table`.

    Raises `NotApplicableError`, naming the table and its `meaning`, where no run did.
    """
    runs = [run for run in experiment.runs if len(run.table(table))]
    if not runs:
        raise NotApplicableError(
            f"no run recorded {meaning} (the table {table} is empty), which this question needs"
        )
    return runs


def by_network(runs: list[Run]) -> dict[str, list[Run]]:
    """The runs of each network, in the order in which the networks come."""
    networks: dict[str, list[Run]] = {}
    for run in runs:
        networks.setdefault(run.network, []).append(run)
    return networks


def seed_name(run: Run) -> str:
    """What a run is called beside others of its network."""
    return "not recorded" if run.seed is None else str(run.seed)


def copies(run: Run) -> pd.Index:
    """The validation images of `run` that are byte-identical to an earlier one of them."""
    images = run.images
    if not len(images):
        return pd.Index([])
    # Runs recorded before there were fingerprints have none: nothing is known to be a copy then.
    validation = images[(images["subset"] == "validation") & images["fingerprint"].notna()]
    return pd.Index(validation.loc[validation["fingerprint"].duplicated(), "image"])


def predictions_of(run: Run, table: str = "predictions") -> pd.DataFrame:
    """The rows of `table`, each distinct validation image once.

    A copy of an image is no further observation: counted again, it makes intervals too narrow.
    """
    rows = run.table(table)
    return rows[~rows["image"].isin(copies(run))]


def copies_caveat(runs: list[Run]) -> tuple[str, ...]:
    """What to say where copies of validation images were left out; nothing where there are none."""
    found = max((len(copies(run)) for run in runs), default=0)
    if not found:
        return ()
    return (
        f"{found} of the validation images are byte-identical copies of others; each distinct "
        "image counts once here, so accuracies differ a little from those of the training log.",
    )


def correctness(table: pd.DataFrame) -> pd.DataFrame:
    """Was each image classified rightly? Booleans, one row an epoch, one column an image.

    Images without a prediction in every epoch are left out, so that epochs compare like with like.
    """
    right = table.assign(right=(table["target"] == table["prediction"]).astype(float))
    wide = right.set_index(["epoch", "image"])["right"].unstack("image")
    return wide.dropna(axis=1).astype(bool).sort_index()


def accuracy_by_epoch(right: pd.DataFrame) -> pd.DataFrame:
    """Accuracy with its Wilson 95 % interval: columns epoch, accuracy, low, high, images."""
    images = right.shape[1]
    counts = right.sum(axis=1)
    intervals = [wilson_interval(int(count), images) for count in counts]
    return pd.DataFrame(
        {
            "epoch": right.index.to_numpy(),
            "accuracy": (counts / max(images, 1)).to_numpy(dtype=float),
            "low": [low for low, _ in intervals],
            "high": [high for _, high in intervals],
            "images": images,
        }
    )


@dataclass(frozen=True)
class Pair:
    """A residual network and the plain one that it is compared with."""

    plain: str
    residual: str


def residual_pairs(experiment: Experiment) -> list[Pair]:
    """Residual networks (those with residual additions) with their plain counterparts.

    A counterpart has the same name with `plain` for `resnet`; where the experiment has just one
    network of each kind, these two are a pair whatever their names. Networks whose images
    differ are none: nothing could be said of the images that both saw.
    """
    residual = [
        name
        for name in experiment.networks
        if "resnet" in name or any(len(run.junctions) for run in experiment.of_network(name))
    ]
    plain = [name for name in experiment.networks if name not in residual]
    pairs = [
        Pair(name.replace("resnet", "plain"), name)
        for name in residual
        if name.replace("resnet", "plain") in plain
    ]
    if not pairs and len(residual) == len(plain) == 1:
        pairs = [Pair(plain[0], residual[0])]
    return [pair for pair in pairs if _on_same_images(experiment, pair)]


def runs_of_pair(experiment: Experiment, pair: Pair) -> list[Run]:
    """All runs of both networks, those of the plain one first."""
    return [*experiment.of_network(pair.plain), *experiment.of_network(pair.residual)]


def _on_same_images(experiment: Experiment, pair: Pair) -> bool:
    first, *others = runs_of_pair(experiment, pair)
    return all(same_images(first, other) for other in others)


def runs_of_same_seed(experiment: Experiment, pair: Pair) -> list[tuple[Run, Run]]:
    """Runs (plain, residual) that share a seed."""
    plain = {run.seed: run for run in experiment.of_network(pair.plain)}
    return [
        (plain[run.seed], run) for run in experiment.of_network(pair.residual) if run.seed in plain
    ]
