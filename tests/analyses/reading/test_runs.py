"""A table that no run recorded is named."""

import pytest

from analyses.reading.runs import runs_with
from analyses.registry import NotApplicableError


def test_a_missing_table_is_named(build):
    with pytest.raises(NotApplicableError, match="the table junctions is empty"):
        runs_with(build.experiment(build.plan()), "junctions", "residual additions")
