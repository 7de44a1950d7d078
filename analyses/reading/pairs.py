"""Residual networks beside their plain counterparts."""

from dataclasses import dataclass

from analyses.reading.matching import same_images
from gradflow.runs.reading.run import Experiment, Run


@dataclass(frozen=True)
class NetworkPair:
    """A residual network and the plain one that it is compared with."""

    plain: str
    residual: str


def residual_pairs(experiment: Experiment) -> list[NetworkPair]:
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
        NetworkPair(name.replace("resnet", "plain"), name)
        for name in residual
        if name.replace("resnet", "plain") in plain
    ]
    if not pairs and len(residual) == len(plain) == 1:
        pairs = [NetworkPair(plain[0], residual[0])]
    return [pair for pair in pairs if _on_same_images(experiment, pair)]


def runs_of_pair(experiment: Experiment, pair: NetworkPair) -> list[Run]:
    """All runs of both networks, those of the plain one first."""
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
