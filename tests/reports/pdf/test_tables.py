"""Tables fit the page: columns share its width, and wide tables are split into pieces."""

import pytest

from analyses.result import Verdict
from reports.document.wording import NOT_OBSERVED
from reports.elements import EstimateRow, FindingElement, TableElement, VerdictLine
from reports.pdf.tables import estimate_table, table_pieces

AVAILABLE = 480.0


def table(columns, rows, numeric=None) -> TableElement:
    numeric = numeric or (False,) * len(columns)
    return TableElement("Table 1", "Some table", columns, numeric, rows, "A note.")


def finding(network: str, *rows: tuple[str, str, str]) -> FindingElement:
    line = VerdictLine(network, "It holds.", Verdict.SUPPORTED, "✓", "yes", "ratio", "1.2")
    return FindingElement(line, "It means.", tuple(EstimateRow(*row) for row in rows))


def test_table_with_room_leaves_its_widths_to_typst():
    (piece,) = table_pieces(table(("layer", "norm"), (("stem", "1.0"), ("head", "2.0"))), AVAILABLE)
    assert piece["widths"] == [None, None]
    assert piece["columns"] == ["layer", "norm"]
    assert piece["rows"] == [["stem", "1.0"], ["head", "2.0"]]
    assert not piece["long"]


def test_columns_share_the_width_and_long_texts_get_most():
    long = "a text of many words that does not fit on one line of the page " * 3
    (piece,) = table_pieces(table(("name", "text"), (("stem", long),)), AVAILABLE)
    assert sum(piece["widths"]) == pytest.approx(AVAILABLE)
    assert piece["widths"][1] > 4 * piece["widths"][0]


def test_table_too_wide_becomes_pieces_that_repeat_the_first_column():
    columns = tuple(f"column{place}" for place in range(30))
    pieces = table_pieces(table(columns, (tuple(map(str, range(30))),)), AVAILABLE)
    assert len(pieces) > 1
    assert all(piece["columns"][0] == "column0" for piece in pieces)
    assert [name for piece in pieces for name in piece["columns"][1:]] == list(columns[1:])
    assert [piece["label"] for piece in pieces[:2]] == ["Table 1", "Table 1 (continued)"]


def test_only_a_long_table_breaks_over_pages():
    rows = tuple((f"layer{place}", "1.0") for place in range(60))
    assert table_pieces(table(("layer", "norm"), rows), AVAILABLE)[0]["long"]
    assert not table_pieces(table(("layer", "norm"), rows[:10]), AVAILABLE)[0]["long"]


def test_numbers_are_never_broken_but_names_are():
    rows = (("stage4.block12.convolution", "-1.2345678901234e-05"),)
    (piece,) = table_pieces(table(("layer", "norm"), rows, (False, True)), AVAILABLE)
    assert piece["rows"] == [["stage4.\u200bblock12.\u200bconvolution", "-1.2345678901234e-05"]]


def test_table_without_columns_is_one_piece():
    (piece,) = table_pieces(table((), ()), AVAILABLE)
    assert (piece["columns"], piece["rows"]) == ([], [])


def test_estimates_of_the_same_quantity_stand_side_by_side():
    laid_out = estimate_table(
        [finding("plain", ("ratio", "1.2", "bootstrap")), finding("res", ("ratio", "3.4", ""))],
        AVAILABLE,
    )
    assert laid_out["columns"] == ["quantity", "plain", "res"]
    assert laid_out["rows"] == [["ratio", "1.2\u00a0[a]", "3.4"]]
    assert laid_out["notes"] == ["[a] bootstrap"]


def test_a_shared_method_is_stated_once_without_marks():
    laid_out = estimate_table(
        [
            finding("plain", ("ratio", "1.2", "bootstrap"), ("slope", "5", "bootstrap")),
            finding("res", ("ratio", "3.4", "bootstrap")),
        ],
        AVAILABLE,
    )
    assert laid_out["rows"] == [["ratio", "1.2", "3.4"], ["slope", "5", NOT_OBSERVED]]
    assert laid_out["notes"] == ["bootstrap"]


def test_networks_that_share_no_quantity_or_are_many_are_listed():
    differing = [finding("plain", ("early", "1", "")), finding("res", ("late", "2", ""))]
    assert estimate_table(differing, AVAILABLE)["rows"] == [
        ["early", "plain", "1"],
        ["late", "res", "2"],
    ]
    many = [finding(f"net{place}", ("ratio", str(place), "")) for place in range(30)]
    laid_out = estimate_table(many, AVAILABLE)
    assert laid_out["columns"] == ["quantity", "network", "estimate"]
    assert len(laid_out["rows"]) == 30
    assert laid_out["long"]


def test_many_methods_have_marks_of_their_own():
    rows = [(f"ratio {place}", "1", f"method {place}") for place in range(28)]
    notes = estimate_table([finding("plain", *rows)], AVAILABLE)["notes"]
    assert [note.split()[0] for note in notes[25:]] == ["[z]", "[aa]", "[ab]"]


def test_findings_without_estimates_have_no_table():
    assert estimate_table([finding("plain")], AVAILABLE) is None
