"""Pairs of a residual network and its plain counterpart."""

from dataclasses import dataclass

from analyses.reading.matching import same_images
from gradflow.runs.reading.run import Experiment, Run


@dataclass(frozen=True)
class NetworkPair:
    """The names of a plain network and of the residual one compared with it."""

    plain: str
    residual: str


def residual_pairs(experiment: Experiment) -> list[NetworkPair]:
    """Pairs of a residual network (one with residual additions) and its plain counterpart.

    A counterpart has the same name with `plain` instead of `resnet`. If the experiment has one
    network of each kind, they are a pair whatever their names. Networks trained or validated on
    different images are no pair: they cannot be compared image by image.
    """
    residual = [
        name
        for name in experiment.networks
        if "resnet" in name or any(len(run.junctions) for run in experiment.of_network(name))
    ]
    plain = [name for name in experiment.networks if name not in residual]
    pairs = [
        NetworkPair(name.replace("resnet", "plain"), name)
        for name in residual
        if name.replace("resnet", "plain") in plain
    ]
    if not pairs and len(residual) == len(plain) == 1:
        pairs = [NetworkPair(plain[0], residual[0])]
    return [pair for pair in pairs if _on_same_images(experiment, pair)]


def runs_of_pair(experiment: Experiment, pair: NetworkPair) -> list[Run]:
    """All runs of both networks, the plain one first."""
    return [*experiment.of_network(pair.plain), *experiment.of_network(pair.residual)]


def _on_same_images(experiment: Experiment, pair: NetworkPair) -> bool:
    first, *others = runs_of_pair(experiment, pair)
    return all(same_images(first, other) for other in others)


def runs_of_same_seed(experiment: Experiment, pair: NetworkPair) -> list[tuple[Run, Run]]:
    """Runs (plain, residual) that share a seed."""
    plain = {run.seed: run for run in experiment.of_network(pair.plain)}
    return [
        (plain[run.seed], run) for run in experiment.of_network(pair.residual) if run.seed in plain
    ]
