"""Reads the catalogue of a language, and says single texts in it.

English is the language of the sources and has no catalogue. What a catalogue lacks stays English.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from string import Formatter

from analyses.wording.translatable import Joined, Numeral, Said
from gradflow.errors import ConfigurationError

CATALOGUES = Path(__file__).parent / "catalogues"
ENGLISH = "en"
_PLACE = re.compile(r"\{\w*\}")


@dataclass(frozen=True)
class Catalogue:
    """The texts of one language.

    Fields:
        language: its code after BCP 47, such as "id".
        messages: the text in this language by the English one; places have the same names.
        decimal, group: the signs in numbers, as in 1,234.5.
        percent: what stands between a number and its percent sign.
    """

    language: str = ENGLISH
    messages: Mapping[str, str] = field(default_factory=dict)
    decimal: str = "."
    group: str = ","
    percent: str = "\u00a0"

    def __call__(self, text: str) -> str:
        """A fixed text of a page or a terminal in this language."""
        return self.messages.get(text, text)

    def say(self, text: str) -> str:
        """`text` in this language, as an ordinary text.

        A sentence of which a part is not in the catalogue is English as a whole.
        """
        if isinstance(text, Joined):
            return text.separator.join(map(self.say, text.items))
        try:
            return self._said(text)
        except KeyError:
            return _plain(text)

    def say_whole(self, text: str) -> str:
        """As `say`; a text that is not marked is looked up too, since it can be no name."""
        return self.say(text) if is_marked(text) else self(text)

    def holds(self, text: str) -> bool:
        """Whether every part of `text` that is said in words is in this catalogue."""
        try:
            self._said(text)
        except KeyError:
            return False
        return True

    def say_parts(self, text: str) -> str:
        """As `say_whole`; of a head such as "running, 95 % low" each part is looked up."""
        said = self.say_whole(text)
        if said != text or is_marked(text):
            return said
        return ", ".join(map(self, text.split(", ")))

    def _said(self, text: str) -> str:
        if isinstance(text, Numeral):
            return self.number(text)
        if isinstance(text, Joined):
            return text.separator.join(map(self._said, text.items))
        if not isinstance(text, Said):
            return text
        found = self.messages.get(text.template, text.template)
        if found is text.template and self.messages and has_words(text.template):
            raise KeyError(text.template)
        if not text.places:
            return found
        return found.format(**{name: self._said(one) for name, one in text.places.items()})

    def number(self, text: str) -> str:
        """A number as English writes it with the signs of this language."""
        signs = str.maketrans({".": self.decimal, ",": self.group})
        value = _plain(text).translate(signs)
        for space in (" ", "\u00a0"):
            value = value.replace(f"{space}%", f"{self.percent}%")
        return value


def is_marked(text: str) -> bool:
    """Whether `text` knows what it was made of."""
    return isinstance(text, Said | Joined | Numeral)


def has_words(template: str) -> bool:
    """Whether `template` says anything itself; "{number}. {title}" does not."""
    return any(letter.isalpha() for letter in _PLACE.sub("", template))


@cache
def catalogue_of(language: str) -> Catalogue:
    """The catalogue of `language`; that of English is empty.

    Raises `ConfigurationError` if there is none.
    """
    if language == ENGLISH:
        return Catalogue()
    if language not in languages():
        raise ConfigurationError(
            f"the language {language!r} has no catalogue: choose from {', '.join(languages())}"
        )
    # Loaded only for reports in other languages.
    from babel import Locale  # noqa: PLC0415
    from babel.messages.pofile import read_po  # noqa: PLC0415

    with catalogue_file(language).open("rb") as file:
        read = read_po(file, locale=language.replace("-", "_"))
    messages = {
        str(one.id): str(one.string)
        for one in read
        if one.id and one.string and not one.fuzzy and same_places(str(one.id), str(one.string))
    }
    locale = Locale.parse(language, sep="-")
    signs = locale.number_symbols["latn"]
    before, _, _ = locale.percent_formats[None].pattern.partition("%")
    return Catalogue(
        language,
        messages,
        signs["decimal"],
        signs["group"],
        before[len(before.rstrip(" \u00a0\u202f")) :],
    )


def languages() -> tuple[str, ...]:
    """The languages of reports, English first."""
    return (ENGLISH, *sorted(one.stem for one in CATALOGUES.glob("*.po")))


def catalogue_file(language: str) -> Path:
    """Where the catalogue of `language` is."""
    return CATALOGUES / f"{language}.po"


def places_in(template: str) -> frozenset[str]:
    """The names of the places of `template`; none if it is no template."""
    try:
        return frozenset(name for _, name, _, _ in Formatter().parse(template) if name)
    except ValueError:  # braces that belong to the text
        return frozenset()


def same_places(english: str, other: str) -> bool:
    """Whether a translation names no place that its English text lacks, and leaves none out."""
    return places_in(english) == places_in(other)


def _plain(text: str) -> str:
    return str.__str__(text)  # without what a subclass knows
