"""Every text can be shown with the fonts at hand, and its long words can break."""

import sys
import unicodedata

import pytest
from fontTools.ttLib import TTFont
from hypothesis import given
from hypothesis import strategies as st

from reports.pdf.fonts import (
    BREAK,
    LONG_IN_CELL,
    breakable,
    font_files,
    printable,
    shown,
    widest_piece,
    width,
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
def test_letters_without_a_glyph_stand_as_their_number(text, expected):
    assert printable(text) == expected


def test_letters_kept_are_those_of_the_font_that_can_be_seen():
    font = TTFont(font_files()[0]).getBestCmap()
    kept = {n for n in range(sys.maxunicode + 1) if printable(chr(n)) == chr(n)}
    unseen = {n for n in font if unicodedata.category(chr(n)).startswith("C")}
    assert kept - {ord("\n"), 0x200C, 0x200D} == set(font) - unseen
    assert len(kept) > 5000


@given(st.text())
def test_breaks_change_nothing_else(text):
    text = text.replace(BREAK, "")
    assert breakable(text, LONG_IN_CELL).replace(BREAK, "") == text


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
    assert shown(text, LONG_IN_CELL).split(BREAK) == pieces


def test_number_and_per_cent_sign_stay_together():
    assert shown("95 % of 3 runs, 50 %") == "95\u00a0% of 3 runs, 50\u00a0%"


def test_names_of_up_to_thirty_letters_stay_whole_in_the_text():
    name = "layer4.2.downsample.0.running_"
    assert len(name) == 30
    assert shown(f"At {name} it falls") == f"At {name} it falls"
    assert BREAK in shown(name + "variance")


def test_width_follows_letters_and_breaks():
    assert width("mmm", 10) > width("nnn", 10) > width("iii", 10)
    assert width("n" * 6, 10) == 2 * width("n" * 6, 5)
    assert widest_piece(f"ab abcd{BREAK}abc", 10) == width("abcd", 10)


def test_a_text_has_no_more_breaks_than_can_be_laid_out():
    text = breakable("a." * 5000, 30)
    assert text.count(BREAK) == 300
    assert text.replace(BREAK, "") == "a." * 5000
