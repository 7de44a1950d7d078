from pathlib import Path

import pytest

from analyses.registry import built_in

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "analyses.md").read_text(
    encoding="utf-8"
)


@pytest.mark.parametrize("key", [one.key for one in built_in()])
def test_the_page_of_analyses_has_a_row_and_a_section_for_each(key):
    assert f"| `{key}` |" in PAGE
    assert f"\n## {key}\n" in PAGE
