from pathlib import Path

from gradflow.runs.format.schema import TABLES, as_markdown

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "quantities.md"


def test_the_page_of_quantities_is_up_to_date():
    message = "run `python -m gradflow.runs.format.schema > docs/reference/quantities.md`"
    assert PAGE.read_text(encoding="utf-8") == as_markdown(), message


def test_the_page_has_a_line_for_every_column_of_every_table():
    sections = as_markdown().split("\n## ")[1:]
    assert [section.splitlines()[0] for section in sections] == list(TABLES)
    for section, table in zip(sections, TABLES.values(), strict=True):
        rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
        names = [row.split("|")[1].strip(" *") for row in rows]
        assert names == [quantity.name for quantity in table.columns]
        for row in rows:
            # Five cells: a bar within a formula is escaped.
            assert row.replace("\\|", "").count("|") == 6
