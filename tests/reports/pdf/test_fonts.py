"""Every text can be shown with the fonts, and long words can break."""

import sys
import unicodedata

import pytest
from fontTools.ttLib import TTFont
from hypothesis import given
from hypothesis import strategies as st

from reports.pdf.fonts import (
    BREAK_MARK,
    UNBROKEN_IN_CELL,
    add_breaks,
    font_files,
    pdf_text,
    replace_unprintable,
    text_width,
    widest_piece_width,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain34", "plain34"),
        ("Größe µ ± 3 → naïve ✓ ✗", "Größe µ ± 3 → naïve ✓ ✗"),
        ("שלום قطة", "שלום قطة"),
        ("猫", "[U+732B]"),
        ("a\U0001f9ec", "a[U+1F9EC]"),
        ("bell\x07 tab\tend", "bell[U+0007] tab end"),
        ("safe\u202ednuora denrut", "safe[U+202E]dnuora denrut"),
        ("\ud800", "[U+D800]"),
        ("\ue000\ufffe", "[U+E000][U+FFFE]"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_characters_without_a_glyph_are_replaced_by_their_number(text, expected):
    assert replace_unprintable(text) == expected


def test_all_visible_characters_of_the_font_are_kept():
    font = TTFont(font_files()[0]).getBestCmap()
    kept = {n for n in range(sys.maxunicode + 1) if replace_unprintable(chr(n)) == chr(n)}
    unseen = {n for n in font if unicodedata.category(chr(n)).startswith("C")}
    assert kept - {ord("\n"), 0x200C, 0x200D} == set(font) - unseen
    assert len(kept) > 5000


@given(st.text())
def test_add_breaks_changes_nothing_else(text):
    text = text.replace(BREAK_MARK, "")
    assert add_breaks(text, UNBROKEN_IN_CELL).replace(BREAK_MARK, "") == text


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("convolution.1", ["convolution.", "1"]),
        ("layer4.2.conv", ["layer4.", "2.", "conv"]),
        ("classification", ["classification"]),
        ("layer1.conv1", ["layer1.conv1"]),
        ("x" * 45, ["x" * 20, "x" * 20, "x" * 5]),
        ("no break in these words", ["no break in these words"]),
    ],
)
def test_long_words_break_after_signs_and_words_of_letters_only_where_very_long(text, pieces):
    assert pdf_text(text, UNBROKEN_IN_CELL).split(BREAK_MARK) == pieces


def test_number_and_per_cent_sign_are_not_separated():
    assert pdf_text("95 % of 3 runs, 50 %") == "95\u00a0% of 3 runs, 50\u00a0%"


def test_names_of_up_to_thirty_characters_are_not_broken_in_text():
    name = "layer4.2.downsample.0.running_"
    assert len(name) == 30
    assert pdf_text(f"At {name} it falls") == f"At {name} it falls"
    assert BREAK_MARK in pdf_text(name + "variance")


def test_width_follows_letters_and_breaks():
    assert text_width("mmm", 10) > text_width("nnn", 10) > text_width("iii", 10)
    assert text_width("n" * 6, 10) == 2 * text_width("n" * 6, 5)
    assert widest_piece_width(f"ab abcd{BREAK_MARK}abc", 10) == text_width("abcd", 10)


def test_a_text_has_no_more_breaks_than_can_be_laid_out():
    text = add_breaks("a." * 5000, 30)
    assert text.count(BREAK_MARK) == 300
    assert text.replace(BREAK_MARK, "") == "a." * 5000
