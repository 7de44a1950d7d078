"""The explorer built ahead: the same one, and not before its tables are in memory."""

from analyses.showing.working_ahead import WorkAhead
from gradflow.runs.reading.run import open_experiment
from reports.document.explorer_ahead import ExplorerAhead
from reports.explorer.builder import build_explorer
from reports.explorer.quantities import GROUPS


def test_explorer_is_built_ahead_once_its_tables_are_in_memory(experiment):
    fresh = open_experiment(experiment.folder)
    with WorkAhead(1) as ahead:
        explorer = ExplorerAhead(fresh, ahead)
        explorer.prepare()
        assert not ahead._workers
        for run in fresh.runs:
            for group in GROUPS:
                run.table(group.table)
        explorer.prepare()
        if ahead._processes:
            while not ahead._done:
                ahead._collect(1)
        explorer.prepare()
        assert not ahead._waiting
        assert explorer.element() == build_explorer(experiment)


def test_explorer_that_was_not_built_ahead_is_built_when_asked_for(experiment):
    with WorkAhead(0) as ahead:
        explorer = ExplorerAhead(experiment, ahead)
        assert explorer.element() == build_explorer(experiment)
