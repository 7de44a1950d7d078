"""Writes counts, lists and names as they appear in sentences."""

from collections.abc import Sequence

MOST_LISTED = 12  # names in a sentence


def plural(count: int, noun: str) -> str:
    """A count with its noun: "1 seed", "3 seeds", "2 classes"."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"


def listing(items: Sequence[str], most: int = MOST_LISTED) -> str:
    """Names as a list in a sentence: "a, b and c"; of more than `most` "a, b and 1,994 more"."""
    if len(items) > most:
        items = [*items[: most - 1], f"{len(items) - most + 1:,} more"]
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def slug(text: str) -> str:
    """`text` as a key: letters and digits stay, every other character becomes a hyphen."""
    return "".join(letter if letter.isalnum() else "-" for letter in text)


def with_network(template: str, network: str) -> str:
    """`template` for one network: "The skips[ of {}] carry most." is "The skips of a carry most."

    The brackets hold the name and the words that go with it; `without_network` leaves them out.
    """
    before, inside, after = _parts(template)
    return before + inside.replace("{}", network) + after


def without_network(template: str) -> str:
    """`template` for any network: "The skips[ of {}] carry most." is "The skips carry most."."""
    before, _, after = _parts(template)
    return before + after


def _parts(template: str) -> tuple[str, str, str]:
    before, _, rest = template.partition("[")
    inside, _, after = rest.partition("]")
    return before, inside, after
