"""One sentence on all networks: what holds in which of them, then the number of each."""

from collections.abc import Sequence
from dataclasses import dataclass

from analyses.wording.phrases import listing

UNKNOWN = "it cannot be told whether"


@dataclass(frozen=True)
class NetworkStatement:
    """What is to be said of one network.

    Fields:
        network: its name.
        clause: what holds there: "the gradients vanish", "it cannot be told whether they do".
        amount: the number with its interval, to stand beside those of other networks.
        detail: a clause of its own with numbers, or why there are none.
    """

    network: str
    clause: str
    amount: str = ""
    detail: str = ""


def sentence(statements: Sequence[NetworkStatement], lead: str = "{}") -> str:
    """What is said of all networks together, those of one clause in one breath.

    Args:
        statements: at least one network.
        lead: what introduces the amounts, which take the place of its braces.

    As in "In both networks x holds: the share is 1 in a and 2 in b."; of one network alone: "In a
    x holds: the share is 1.". What cannot be told of some stands after what holds in others, as
    "in c this cannot be told".
    """
    alone = len(statements) == 1
    clauses = _grouped([(one.clause, one.network) for one in statements])
    unknown = [clause for clause in clauses if clause.startswith(UNKNOWN)]
    if len(unknown) == 1 and len(clauses) > 1:
        clauses["this cannot be told"] = clauses.pop(unknown[0])
    said = [f"in {_place(names, len(statements))} {clause}" for clause, names in clauses.items()]
    amounts = [
        one.amount if alone else f"{one.amount} in {one.network}"
        for one in statements
        if one.amount
    ]
    behind = [lead.replace("{}", listing(amounts))] if amounts else []
    details = _grouped([(one.detail, one.network) for one in statements if one.detail])
    behind += [
        detail if alone else f"in {_place(names, len(statements))} {detail}"
        for detail, names in details.items()
    ]
    text = "; ".join(said)
    # Only the first letter, which is ours: names may stand anywhere.
    return f"I{text[1:]}{': ' if behind else ''}{'; '.join(behind)}."


def _grouped(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Networks by what is said of them, in the order of the first ones."""
    groups: dict[str, list[str]] = {}
    for text, network in pairs:
        groups.setdefault(text, []).append(network)
    return groups


def _place(names: Sequence[str], of: int) -> str:
    if len(names) == of and of > 1:
        return "both networks" if of == 2 else f"all {of} networks"
    return listing(names)
