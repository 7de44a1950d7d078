"""Whose training a run was."""

import pytest

from gradflow.runs.reading.run import Run
from gradflow.training.configuration import Configuration


def recorded(tmp_path, configuration):
    return Run(tmp_path, {"tracing": {}, "configuration": configuration})


def test_a_run_of_the_command_is_nobody_s_own(tmp_path):
    run = recorded(tmp_path, Configuration().as_json())
    assert run.is_of_command
    assert not run.is_own


@pytest.mark.parametrize(
    "configuration",
    [None, {}, {"lr": 0.1}, {"models": ["gpt"], "seeds": [1], "epochs": 3}, {"models": 2}],
)
def test_what_an_owner_writes_into_the_configuration_leaves_the_run_their_own(
    tmp_path, configuration
):
    run = recorded(tmp_path, configuration)
    assert run.is_own
    assert not run.is_of_command
