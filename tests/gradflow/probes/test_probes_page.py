from pathlib import Path

import pytest

from gradflow.probes.registry import PROBE_NAMES
from gradflow.runs.format.probe_tables import PROBE_TABLES

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "probes.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PROBE_NAMES)
def test_the_page_of_probes_has_a_row_and_a_section_for_each(name):
    assert f"| `{name}` |" in PAGE
    assert f"\n## {name}\n" in PAGE


@pytest.mark.parametrize("table", [table.name for table in PROBE_TABLES])
def test_the_page_of_probes_names_every_table_that_they_fill(table):
    assert f"`{table}`" in PAGE
