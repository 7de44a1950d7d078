"""Which letters the PDF can show, how wide they are, and where its long words may break."""

import re
import unicodedata
from functools import lru_cache
from pathlib import Path

# Words of up to this many letters stay whole, in the text and in the narrow cells of a table.
UNBROKEN_IN_TEXT, UNBROKEN_IN_CELL = 30, 12
BREAK_MARK = "\u200b"  # the template turns it into a place where a line may break, and no character
REPLACED_CHARACTER = re.compile(r"\[U\+[0-9A-F]{4,6}\]")  # a character that stands as its number
# Control, formatting, surrogate, private and unassigned: nothing to see, or order turned around.
_INVISIBLE_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn"}
_JOINERS = "\u200c\u200d"  # Persian and others spell with them
_FONT_STYLES = ("", "-Bold", "-Oblique", "-BoldOblique")
# What a run of letters alone may reach before it is broken, hyphenless, in its middle.
_LETTERS_PER_BREAK = 20
_BREAKS = re.compile(rf"([._/\\,;:=#)\-])(?=\w)|([^\W_]{{{_LETTERS_PER_BREAK}}})(?=\w)")
_MOST_BREAKS = 300  # in one text
_PER_CENT = re.compile(r"(?<=\d) (?=%)")
# Widths in em of the serif font; everything else is as wide as an average character.
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
    """`text` with each character that no font has, or none shows, as its number: `[U+732B]`.

    Formatting characters count as such: those that turn the direction of writing around could
    make the text say something else.
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
    """`text` as the PDF shows it: in letters that a font has, and words that may break.

    A number and its per cent sign stay on one line.
    """
    return add_breaks(_PER_CENT.sub("\u00a0", replace_unprintable(text)), longest)


def add_breaks(text: str, longest: int) -> str:
    """`text` with places to break in words over `longest` letters, after signs where there are.

    Elsewhere words stay whole, so that they can be read, searched and copied.
    """
    long_word = re.compile(rf"[^\s\u00a0]{{{longest + 1},}}")
    first, *others = long_word.sub(
        lambda word: _BREAKS.sub(rf"\g<0>{BREAK_MARK}", word[0]), text
    ).split(BREAK_MARK)
    # Each nests in the one before, as typst lays them out, and it gives up where that is too deep.
    kept, rest = others[:_MOST_BREAKS], others[_MOST_BREAKS:]
    return BREAK_MARK.join([first, *kept]) + "".join(rest)


def text_width(text: str, size: float) -> float:
    """About how wide `text` is on one line, in the unit of the font's `size`."""
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
    """How wide the widest part of `text` is that no line break can part."""
    return max(
        (text_width(piece, size) for piece in re.split(f"[ \n{BREAK_MARK}]", text)), default=0.0
    )
