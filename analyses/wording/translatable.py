"""Texts that know what they were made of, so that a report can say them in another language.

Each is an ordinary English text. A report in another language looks its template up in a catalogue
(`reports.languages`), and says its places in that language too.
"""

from collections.abc import Iterable


class Numeral(str):
    """A number as English writes it, "1,234.5" or "43.3 %"; other languages write other signs."""

    def __str__(self) -> str:
        return self  # as it is: str(...) would forget what it is


class Said(str):
    """A text made from a template with named places: `Said("In {network} it holds.", network=a)`.

    What stands in a place is said in the other language if it is one of the classes of this module;
    an ordinary text, such as the name of a network, stays as it is. Without places the template is
    the text, braces included.
    """

    template: str
    places: dict[str, str]

    def __new__(cls, template: str, /, **places: str) -> "Said":
        """The text of `template` with `places` in their places."""
        made = super().__new__(cls, template.format(**places) if places else template)
        made.template, made.places = str.__str__(template), places
        return made

    def __str__(self) -> str:
        return self

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, str]]:
        """What makes it again: it may be copied and sent to another process."""
        return (self.template,), self.places


class Joined(str):
    """Texts one after another, each said in the other language."""

    items: tuple[str, ...]
    separator: str

    def __new__(cls, items: Iterable[str], separator: str = " ") -> "Joined":
        """All `items` that are not empty, with `separator` between them."""
        parts = tuple(one for one in items if one)
        made = super().__new__(cls, separator.join(parts))
        made.items, made.separator = parts, separator
        return made

    def __str__(self) -> str:
        return self

    def __getnewargs_ex__(self) -> tuple[tuple[tuple[str, ...], str], dict[str, str]]:
        """What makes it again: it may be copied and sent to another process."""
        return (self.items, self.separator), {}


def message(text: str) -> str:
    """`text`, marked as one that a catalogue may hold as it is, wherever it stands."""
    return text if isinstance(text, Said | Joined | Numeral) else Said(text)


def literal(text: str) -> str:
    """`text` as a part of a template: its braces are no places."""
    return text.replace("{", "{{").replace("}", "}}")
