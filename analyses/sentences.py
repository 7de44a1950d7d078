"""One sentence on all networks: what holds in which of them, then the number of each."""

from collections.abc import Sequence
from dataclasses import dataclass

from analyses.wording import listing


@dataclass(frozen=True)
class Told:
    """What is to be said of one network.

    Fields:
        network: its name.
        clause: what holds there, without a subject of its own name: "the gradients vanish".
        amount: the number with its interval; empty where there is none.
        reason: why there is no number, as a clause; empty where there is one.
    """

    network: str
    clause: str
    amount: str = ""
    reason: str = ""


def sentence(told: Sequence[Told], lead: str = "{}") -> str:
    """What is said of all networks together, those of one clause in one breath.

    Args:
        told: at least one network.
        lead: what introduces the amounts, which take the place of its braces.

    As in "In both networks x holds: the share is 1 in a and 2 in b."; of one network alone: "In a
    x holds: the share is 1.".
    """
    groups: dict[str, list[str]] = {}
    for one in told:
        groups.setdefault(one.clause, []).append(one.network)
    said = "; ".join(f"in {_place(names, len(told))} {each}" for each, names in groups.items())
    alone = len(told) == 1
    amounts = [
        one.amount if alone else f"{one.amount} in {one.network}" for one in told if one.amount
    ]
    behind = [lead.replace("{}", listing(amounts))] if amounts else []
    behind += [
        one.reason if alone else f"in {one.network} {one.reason}" for one in told if one.reason
    ]
    # Only the first letter: names may stand anywhere.
    return f"I{said[1:]}{': ' if behind else ''}{'; '.join(behind)}."


def _place(names: Sequence[str], of: int) -> str:
    if len(names) == of and of > 1:
        return "both networks" if of == 2 else f"all {of} networks"
    return listing(names)
