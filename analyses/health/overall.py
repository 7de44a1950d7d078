"""The finding on a network as a whole: what was found, what was not asked, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from analyses.health.chains import Chain
from analyses.health.condition import NotAsked
from analyses.health.conditions import CONDITIONS
from analyses.health.findings import EVIDENCE, HARMLESS
from analyses.result import Estimate, Finding, Verdict
from analyses.wording.phrases import listing, plural, slug, with_network, without_network
from analyses.wording.sentences import NetworkStatement, sentence
from analyses.wording.translatable import Joined, Numeral, Said, message

HEALTHY_NETWORK = "The network[ {}] can be called healthy."


@dataclass(frozen=True)
class Unasked:
    """What could not be asked of a network.

    Fields:
        conditions: those that were not asked, with the reasons.
        layers: those of which nothing was recorded, with the reasons.
    """

    conditions: tuple[NotAsked, ...] = ()
    layers: Mapping[str, str] = field(default_factory=dict)

    @property
    def open(self) -> list[NotAsked]:
        """The conditions without which a network cannot be called healthy."""
        return [one for one in self.conditions if one.applies and CONDITIONS[one.condition].needed]

    @property
    def caveats(self) -> tuple[str, ...]:
        """What was not asked, and why, in sentences."""
        by_reason: dict[str, list[str]] = {}
        for one in self.conditions:
            by_reason.setdefault(one.reason, []).append(one.condition)
        said = [f"{listing(keys)}, for {reason}" for reason, keys in by_reason.items()]
        layers = [f"{name} {reason}" for name, reason in self.layers.items()]
        return (
            f"Not asked: {'; '.join(said)}." if said else "Every condition was asked.",
            *((f"Of some layers nothing was recorded: {listing(layers)}.",) if layers else ()),
        )


def overall_finding(
    network: str,
    by_condition: dict[str, Finding],
    unasked: Unasked,
    chains: Sequence[Chain] = (),
    hypothesis: str = HEALTHY_NETWORK,
) -> Finding:
    """Whether none of several conditions holds.

    A network is healthy if every condition that applies to it was asked, and none found. Those that
    take a measurement that one has to ask for (`Condition.needed`) stand beside it, with the reason
    why they were not asked. If nothing was recorded of a layer, the verdict is open.

    Args:
        network: its name.
        by_condition: the finding on each condition that was checked.
        unasked: what could not be asked.
        chains: of the conditions that were found.
        hypothesis: names what is healthy; the network's name in brackets, as `named` of
            `analyses.wording.phrases` expects.
    """
    asked = {key: one for key, one in by_condition.items() if key not in HARMLESS}
    ill = [key for key, one in asked.items() if one.verdict is Verdict.SUPPORTED]
    open_ones = [key for key, one in asked.items() if one.verdict is Verdict.INCONCLUSIVE]
    is_open = open_ones or not asked or unasked.open or unasked.layers
    first = chains[0].links[0].condition if chains else ill[0] if ill else ""
    return Finding(
        key=slug(f"healthy-{network}"),
        network=network,
        hypothesis=with_network(hypothesis, network),
        contradicted_by="One condition that is supported.",
        verdict=(
            Verdict.CONTRADICTED if ill else Verdict.INCONCLUSIVE if is_open else Verdict.SUPPORTED
        ),
        estimates=(
            Estimate(
                Said("conditions found, of {count} checked", count=Numeral(f"{len(asked)}")),
                float(len(ill)),
                method="count, no interval; each condition is compared with its own bound",
            ),
        ),
        threshold=(
            "supported if every condition that applies was checked and is contradicted, and "
            "something was recorded of every layer"
        ),
        meaning=sentence(
            [NetworkStatement(network, overall_clause(by_condition, unasked, chains))]
        ),
        next_step=(
            by_condition[first].next_step
            if ill
            else "Look at accuracy and loss: this check does not cover them."
        ),
        caveats=(
            *unasked.caveats,
            "Several conditions are tested at once: the more, the likelier one is found by chance.",
        ),
        statement=without_network(hypothesis),
        evidence=(*EVIDENCE, "not-asked"),
        bad_if=Verdict.CONTRADICTED,
    )


def overall_clause(
    by_condition: dict[str, Finding],
    unasked: Unasked,
    chains: Sequence[Chain] = (),
    *,
    reasons: bool = True,
) -> str:
    """Which of the conditions in `by_condition` hold, as a clause that follows "In <network>".

    `reasons` says whether it tells why conditions were not asked.
    """
    asked = {key: one.verdict for key, one in by_condition.items() if key not in HARMLESS}
    ill = [key for key, verdict in asked.items() if verdict is Verdict.SUPPORTED]
    open_ones = [key for key, verdict in asked.items() if verdict is Verdict.INCONCLUSIVE]
    checked = plural(len(asked), "condition")
    if ill:
        template = message(
            "{count} of the {checked} checked was found: {found}"
            if len(ill) == 1
            else "{count} of the {checked} checked were found: {found}"
        )
        count = Numeral(f"{len(ill)}")
        clause = Said(template, count=count, checked=checked, found=listing(ill))
        return Joined((clause, *(chain.clause for chain in chains)), "; ")
    if open_ones:
        return Said(
            "none of the {checked} checked is certain, but {open} cannot be ruled out",
            checked=checked,
            open=listing(open_ones),
        )
    if not asked:
        return Said("no condition could be checked")
    if unasked.layers:
        return Said(
            "none of the {checked} checked was found, but nothing was recorded of layer {layers}"
            if len(unasked.layers) == 1
            else "none of the {checked} checked was found, but nothing was recorded of layers "
            "{layers}",
            checked=checked,
            layers=listing(list(unasked.layers)),
        )
    if unasked.open:
        missing = [
            Said("{condition} ({reason})", condition=one.condition, reason=one.reason)
            for one in unasked.open
        ]
        return Said(
            "none of the {checked} checked was found, but not asked was {missing}"
            if len(missing) == 1
            else "none of the {checked} checked was found, but not asked were {missing}",
            checked=checked,
            missing=listing(missing),
        )
    return Said(
        "none of the {checked} checked was found ({asked}){beside}",
        checked=checked,
        asked=listing(list(asked)),
        beside=_beside(unasked, reasons=reasons),
    )


def _missed(unasked: Unasked) -> dict[str, list[str]]:
    """The conditions that were not asked though they would spoil the training, by the reason."""
    by_reason: dict[str, list[str]] = {}
    for one in unasked.conditions:
        if one.applies and CONDITIONS[one.condition].spoils:
            by_reason.setdefault(one.reason, []).append(one.condition)
    return by_reason


def _beside(unasked: Unasked, *, reasons: bool) -> str:
    """What was not asked of a healthy network though it would spoil the training."""
    by_reason = _missed(unasked)
    said: list[str] = [key for keys in by_reason.values() for key in keys]
    if reasons:
        said = [
            Said("{condition} ({reason})", condition=listing(keys), reason=reason)
            for reason, keys in by_reason.items()
        ]
    return Said("; not asked: {conditions}", conditions=listing(said)) if said else ""
