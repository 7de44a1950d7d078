"""Texts for the PDF: characters that the fonts lack, text widths, and breaks in long words."""

import re
import unicodedata
from functools import lru_cache
from pathlib import Path

# Words of up to this many characters are not broken, in text and in narrow table cells.
UNBROKEN_IN_TEXT, UNBROKEN_IN_CELL = 30, 12
BREAK_MARK = "\u200b"  # the template turns it into a possible line break without a character
REPLACED_CHARACTER = re.compile(r"\[U\+[0-9A-F]{4,6}\]")  # a character replaced by its number
# Control, formatting, surrogate, private and unassigned: invisible, or reversing the text.
_INVISIBLE_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn"}
_JOINERS = "\u200c\u200d"  # used in the spelling of Persian and other languages
_FONT_STYLES = ("", "-Bold", "-Oblique", "-BoldOblique")
# A run of letters only is broken after this many letters, without a hyphen.
_LETTERS_PER_BREAK = 20
_BREAKS = re.compile(rf"([._/\\,;:=#)\-])(?=\w)|([^\W_]{{{_LETTERS_PER_BREAK}}})(?=\w)")
_MOST_BREAKS = 300  # in one text
_PER_CENT = re.compile(r"(?<=\d) (?=%)")
# Character widths of the serif font in em; all other characters have the average width.
_NARROW, _AVERAGE, _WIDE = 0.29, 0.47, 0.76
BOLD_FACTOR = 1.11  # how much wider bold letters are
_NARROW_CHARACTERS = set(" \u00a0.,:;'|!()[]ijlt-")
_WIDE_CHARACTERS = set("mwMW@%—…→ABCDGHKNOQRUVXYµ")


def font_files() -> tuple[Path, ...]:
    """The fallback font for characters that typst's fonts lack: regular, then its styles."""
    from matplotlib import get_data_path  # noqa: PLC0415 - slow to load, needed only here

    folder = Path(get_data_path()) / "fonts" / "ttf"
    return tuple(folder / f"DejaVuSans{style}.ttf" for style in _FONT_STYLES)


def replace_unprintable(text: str) -> str:
    """`text` with each invisible or missing character replaced by its number, as in `[U+732B]`.

    Formatting characters are replaced too: those that reverse the direction of writing could change
    what the text says.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_replace_character, text))


@lru_cache(maxsize=4096)
def _replace_character(character: str) -> str:
    if character == "\n" or character in _JOINERS:
        return character
    if (
        unicodedata.category(character) not in _INVISIBLE_CATEGORIES
        and ord(character) in _characters_in_font()
    ):
        return character
    return " " if character.isspace() else f"[U+{ord(character):04X}]"


@lru_cache(maxsize=1)
def _characters_in_font() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font  # noqa: PLC0415 - slow to load, needed only here

    return frozenset(FT2Font(str(font_files()[0])).get_charmap())


def pdf_text(text: str, longest: int = UNBROKEN_IN_TEXT) -> str:
    """`text` as the PDF shows it: with replaced characters and possible breaks in long words.

    A number and its per cent sign stay on one line.
    """
    return add_breaks(_PER_CENT.sub("\u00a0", replace_unprintable(text)), longest)


def add_breaks(text: str, longest: int) -> str:
    """`text` with possible breaks in words over `longest` characters, after punctuation if any.

    Other words are not broken, so that they can be read, searched and copied.
    """
    long_word = re.compile(rf"[^\s\u00a0]{{{longest + 1},}}")
    first, *others = long_word.sub(
        lambda word: _BREAKS.sub(rf"\g<0>{BREAK_MARK}", word[0]), text
    ).split(BREAK_MARK)
    # typst nests each break in the one before, and fails if the nesting is too deep.
    kept, rest = others[:_MOST_BREAKS], others[_MOST_BREAKS:]
    return BREAK_MARK.join([first, *kept]) + "".join(rest)


def text_width(text: str, size: float) -> float:
    """The approximate width of `text` on one line, in the unit of the font's `size`."""
    ems = sum(
        _NARROW
        if character in _NARROW_CHARACTERS
        else _WIDE
        if character in _WIDE_CHARACTERS
        else _AVERAGE
        for character in text
        if character != BREAK_MARK
    )
    return ems * size


def widest_piece_width(text: str, size: float) -> float:
    """The width of the widest part of `text` that has no possible line break."""
    return max(
        (text_width(piece, size) for piece in re.split(f"[ \n{BREAK_MARK}]", text)), default=0.0
    )
