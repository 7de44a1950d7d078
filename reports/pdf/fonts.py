"""Which letters the PDF can show, how wide they are, and where its long words may break."""

import re
import unicodedata
from functools import lru_cache
from pathlib import Path

# Words of up to this many letters stay whole, in the text and in the narrow cells of a table.
LONG_IN_TEXT, LONG_IN_CELL = 30, 12
BREAK = "\u200b"  # the template turns it into a place where a line may break, and no letter
NUMBERED = re.compile(r"\[U\+[0-9A-F]{4,6}\]")  # a letter that stands as its number
# Control, formatting, surrogate, private and unassigned: nothing to see, or order turned around.
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn"}
_JOINERS = "\u200c\u200d"  # Persian and others spell with them
_STYLES = ("", "-Bold", "-Oblique", "-BoldOblique")
# What a run of letters alone may reach before it is broken, hyphenless, in its middle.
_LONGEST_RUN = 20
_BREAKS = re.compile(rf"([._/\\,;:=#)\-])(?=\w)|([^\W_]{{{_LONGEST_RUN}}})(?=\w)")
_MOST_BREAKS = 300  # in one text
_PER_CENT = re.compile(r"(?<=\d) (?=%)")
# Widths in em of the serif font; everything else is as wide as an average letter.
_NARROW, _AVERAGE, _WIDE = 0.29, 0.47, 0.76
BOLD = 1.11  # how much wider bold letters are
_NARROW_LETTERS = set(" \u00a0.,:;'|!()[]ijlt-")
_WIDE_LETTERS = set("mwMW@%—…→ABCDGHKNOQRUVXYµ")


def font_files() -> tuple[Path, ...]:
    """The font that stands in where those within typst lack a letter: regular, then its styles."""
    from matplotlib import get_data_path  # noqa: PLC0415 - slow to load, needed only here

    folder = Path(get_data_path()) / "fonts" / "ttf"
    return tuple(folder / f"DejaVuSans{style}.ttf" for style in _STYLES)


def printable(text: str) -> str:
    """`text` with each letter that no font has, or none shows, as its number: `[U+732B]`.

    Formatting characters count as such: those that turn the direction of writing around could
    make the text say something else.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_printable, text))


@lru_cache(maxsize=4096)
def _printable(letter: str) -> str:
    if letter == "\n" or letter in _JOINERS:
        return letter
    if unicodedata.category(letter) not in _UNSEEN and ord(letter) in _covered():
        return letter
    return " " if letter.isspace() else f"[U+{ord(letter):04X}]"


@lru_cache(maxsize=1)
def _covered() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font  # noqa: PLC0415 - slow to load, needed only here

    return frozenset(FT2Font(str(font_files()[0])).get_charmap())


def shown(text: str, longest: int = LONG_IN_TEXT) -> str:
    """`text` as the PDF shows it: in letters that a font has, and words that may break.

    A number and its per cent sign stay on one line.
    """
    return breakable(_PER_CENT.sub("\u00a0", printable(text)), longest)


def breakable(text: str, longest: int) -> str:
    """`text` with places to break in words over `longest` letters, after signs where there are.

    Elsewhere words stay whole, so that they can be read, searched and copied.
    """
    long_word = re.compile(rf"[^\s\u00a0]{{{longest + 1},}}")
    first, *others = long_word.sub(lambda word: _BREAKS.sub(rf"\g<0>{BREAK}", word[0]), text).split(
        BREAK
    )
    # Each nests in the one before, as typst lays them out, and it gives up where that is too deep.
    kept, rest = others[:_MOST_BREAKS], others[_MOST_BREAKS:]
    return BREAK.join([first, *kept]) + "".join(rest)


def width(text: str, size: float) -> float:
    """About how wide `text` is on one line, in the unit of the font's `size`."""
    ems = sum(
        _NARROW if letter in _NARROW_LETTERS else _WIDE if letter in _WIDE_LETTERS else _AVERAGE
        for letter in text
        if letter != BREAK
    )
    return ems * size


def widest_piece(text: str, size: float) -> float:
    """How wide the widest part of `text` is that no line break can part."""
    return max((width(piece, size) for piece in re.split(f"[ \n{BREAK}]", text)), default=0.0)
