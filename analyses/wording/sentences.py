"""Writes one sentence on several networks: what holds in which network, then their numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

from analyses.wording.phrases import listing
from analyses.wording.translatable import Joined, Numeral, Said, literal, message

UNKNOWN = "it cannot be told whether"


@dataclass(frozen=True)
class NetworkStatement:
    """A statement on one network.

    Fields:
        network: its name.
        clause: what holds, e.g. "the gradients vanish" or "it cannot be told whether they do".
        amount: the number with its interval, to be listed with those of other networks.
        detail: a further clause with numbers, or the reason why there are none.
    """

    network: str
    clause: str
    amount: str = ""
    detail: str = ""


def sentence(statements: Sequence[NetworkStatement], lead: str = "{}") -> str:
    """The statements on all networks as one sentence; networks with equal clauses are joined.

    Args:
        statements: at least one network.
        lead: the words around the amounts, with {} in their place.

    For several networks: "In both networks x holds: the share is 1 in a and 2 in b." For one: "In
    a x holds: the share is 1." An unknown comes after what holds in other networks, as "in c this
    cannot be told".
    """
    alone = len(statements) == 1
    clauses = _grouped([(one.clause, one.network) for one in statements])
    unknown = [clause for clause in clauses if clause.startswith(UNKNOWN)]
    if len(unknown) == 1 and len(clauses) > 1:
        clauses[message("this cannot be told")] = clauses.pop(unknown[0])
    beginnings = [message("In {place} {clause}"), *["in {place} {clause}"] * len(clauses)]
    said = [
        Said(beginning, place=_place(names, len(statements)), clause=message(clause))
        for beginning, (clause, names) in zip(beginnings, clauses.items(), strict=False)
    ]
    amounts = [
        one.amount
        if alone
        else Said("{amount} in {network}", amount=one.amount, network=one.network)
        for one in statements
        if one.amount
    ]
    behind = [_around(listing(amounts), lead)] if amounts else []
    details = _grouped([(one.detail, one.network) for one in statements if one.detail])
    behind += [
        message(detail)
        if alone
        else Said(
            "in {place} {clause}", place=_place(names, len(statements)), clause=message(detail)
        )
        for detail, names in details.items()
    ]
    if not behind:
        return Said("{said}.", said=Joined(said, "; "))
    return Said("{said}: {numbers}.", said=Joined(said, "; "), numbers=Joined(behind, "; "))


def _around(amounts: str, lead: str) -> str:
    before, place, after = lead.partition("{}")
    template = f"{literal(before)}{{amounts}}{literal(after)}" if place else literal(before)
    return Said(template, amounts=amounts)


def _grouped(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Networks by text, in the order in which the texts first appear."""
    groups: dict[str, list[str]] = {}
    for text, network in pairs:
        groups.setdefault(text, []).append(network)
    return groups


def _place(names: Sequence[str], of: int) -> str:
    if len(names) == of and of > 1:
        if of == 2:
            return Said("both networks")
        return Said("all {count} networks", count=Numeral(f"{of}"))
    return listing(names)
