"""Selects the runs of an experiment that recorded a table, and groups them by network."""

from analyses.registry import NotApplicableError
from gradflow.runs.reading.run import Experiment, Run


def runs_with(experiment: Experiment, table: str, meaning: str) -> list[Run]:
    """The runs that recorded rows in `table`.

    Raises `NotApplicableError` if no run did; it names the table and its `meaning`.
    """
    runs = [run for run in experiment.runs if len(run.table(table))]
    if not runs:
        raise NotApplicableError(
            f"no run recorded {meaning} (the table {table} is empty), which this question needs"
        )
    return runs


def by_network(runs: list[Run]) -> dict[str, list[Run]]:
    """The runs of each network, in the order in which networks first appear."""
    networks: dict[str, list[Run]] = {}
    for run in runs:
        networks.setdefault(run.network, []).append(run)
    return networks


def seed_label(run: Run) -> str:
    """The label of a run among the runs of its network: its seed."""
    return "not recorded" if run.seed is None else str(run.seed)
