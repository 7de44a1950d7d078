"""Writes counts, lists and names as they appear in sentences."""

from collections.abc import Sequence

from analyses.wording.translatable import Joined, Numeral, Said, literal, message

MOST_LISTED = 12  # names in a sentence


def plural(count: int, noun: str) -> str:
    """A count with its noun: "1 seed", "3 seeds", "2 classes"."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return Said(f"{{count}} {literal(noun)}{ending}", count=Numeral(f"{count:,}"))


def listing(items: Sequence[str], most: int = MOST_LISTED) -> str:
    """Names as a list in a sentence: "a, b and c"; of more than `most` "a, b and 1,994 more"."""
    if len(items) > most:
        left = Numeral(f"{len(items) - most + 1:,}")
        items = [*items[: most - 1], Said("{count} more", count=left)]
    if len(items) < 2:
        return items[0] if items else ""
    # Some languages have a comma before the last of three and more.
    two, more = message("{first} and {last}"), message("{others} and {last}")
    template = two if len(items) == 2 else more
    place = template[1:].partition("}")[0]
    return Said(template, **{place: Joined(items[:-1], ", "), "last": items[-1]})


def slug(text: str) -> str:
    """`text` as a key: letters and digits stay, every other character becomes a hyphen."""
    return "".join(letter if letter.isalnum() else "-" for letter in text)


def with_network(template: str, network: str, **places: str) -> str:
    """`template` for one network: "The skips[ of {}] carry most." is "The skips of a carry most."

    The brackets hold the name and the words that go with it; `without_network` leaves them out.
    `places` are other named places of the template.
    """
    return Said(named_template(template), network=network, **places)


def without_network(template: str, **places: str) -> str:
    """`template` for any network: "The skips[ of {}] carry most." is "The skips carry most."."""
    return Said(nameless_template(template), **places)


def named_template(template: str) -> str:
    """`template` with the place `network`: "The skips of {network} carry most."."""
    before, inside, after = _parts(template)
    return before + inside.replace("{}", "{network}") + after


def nameless_template(template: str) -> str:
    """`template` without its brackets."""
    before, _, after = _parts(template)
    return before + after


def _parts(template: str) -> tuple[str, str, str]:
    before, _, rest = template.partition("[")
    inside, _, after = rest.partition("]")
    return before, inside, after
