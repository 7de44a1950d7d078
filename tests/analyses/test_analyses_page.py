from pathlib import Path

import pytest

from analyses.registry import BUILT_IN, COMPARING

PAGE = (Path(__file__).parents[2] / "docs" / "analyses.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("key", [*COMPARING, *BUILT_IN])
def test_the_page_of_analyses_has_a_row_and_a_section_for_each(key):
    assert f"| `{key}` |" in PAGE
    assert f"\n## {key}\n" in PAGE
