"""Findings on a network from the readings of its runs: joint verdicts, numbers and words."""

from collections.abc import Sequence

from analyses.health.chains import Chain, chains_of, link_clause
from analyses.health.condition import Condition
from analyses.health.conditions import CONDITIONS
from analyses.health.readings import Reading
from analyses.result import LOOK_ELSEWHERE, Estimate, Finding, Length, Verdict
from analyses.wording.numbers import number, with_interval
from analyses.wording.phrases import slug, with_network, without_network
from analyses.wording.sentences import NetworkStatement, sentence
from analyses.wording.translatable import Joined, Said, message
from gradflow.runs.reading.run import Run

HARMLESS = {key for key, one in CONDITIONS.items() if one.harmless}
RECORDED_STEPS_ONLY = "Only recorded steps count."
LAST_STEPS_ONLY = (
    "Only recorded steps count, by the median over the last of them. The interval assumes that the "
    "steps are independent, so it is too narrow if neighbouring steps are alike."
)
BEHIND_NORMALIZATION = (
    "Behind batch normalization gradients grow toward the input at initialization by about 1.2 a "
    "layer (Yang et al. 2019), and the update of a normalized weight does not depend on its scale: "
    "growth there is less harmful than elsewhere."
)
INPUT = "(input)"  # the name of the image itself in the table of the shattering probe
EVIDENCE = ("conditions",)
Readings = dict[str, list[tuple[Run, Reading]]]


def joint_verdict(condition: str, readings: list[Reading]) -> Verdict:
    """The verdict over several runs of one network.

    Supported if at least half of the runs have the condition (for values that are not finite, any
    run). Contradicted if most runs lack it and none has it."""
    count = sum(one.verdict is Verdict.SUPPORTED for one in readings)
    clear = sum(one.verdict is Verdict.CONTRADICTED for one in readings)
    if count and (2 * count >= len(readings) or CONDITIONS[condition].any_run):
        return Verdict.SUPPORTED
    return Verdict.CONTRADICTED if 2 * clear > len(readings) and not count else Verdict.INCONCLUSIVE


def worst_run(members: list[tuple[Run, Reading]]) -> tuple[Run, Reading]:
    """The run closest to having the condition, among the runs whose verdict is the joint one."""
    joint = joint_verdict(members[0][1].condition, [reading for _, reading in members])

    def closeness(member: tuple[Run, Reading]) -> tuple[bool, float]:
        one = member[1]
        value = one.value if one.value is not None else one.threshold
        return one.verdict is not joint, value if one.rule.startswith("below") else -value

    return min(members, key=closeness)


def network_chains(found: Readings) -> list[Chain]:
    """The chains of conditions of a network, in that one of its runs that has most of them.

    Only conditions that the network has count, and none that is harmless.
    """
    ill: list[tuple[Run, Reading]] = [
        (run, one)
        for name, members in found.items()
        if joint_verdict(name, [reading for _, reading in members]) is Verdict.SUPPORTED
        for run, one in members
        if one.verdict is Verdict.SUPPORTED and name not in HARMLESS
    ]
    by_run: dict[int, tuple[Run, list[Reading]]] = {}
    for run, one in ill:
        by_run.setdefault(id(run), (run, []))[1].append(one)
    if not by_run:
        return []
    run, readings = max(by_run.values(), key=lambda entry: len(entry[1]))
    return chains_of(run, readings)


def condition_finding(
    network: str,
    condition: str,
    members: list[tuple[Run, Reading]],
    chains: Sequence[Chain] = (),
) -> Finding:
    """The finding on one condition of `network`, from the reading of each of its runs.

    If it is an effect in one of `chains`, the finding says of what.
    """
    first = _first_link(condition, chains)
    words = CONDITIONS[condition]
    one_run, one = worst_run(members)
    verdict = joint_verdict(one.condition, [reading for _, reading in members])
    return Finding(
        key=slug(f"{one.condition}-{network}"),
        network=network,
        hypothesis=with_network(words.hypothesis, network),
        contradicted_by=words.contradicted_by,
        verdict=verdict,
        estimates=_estimates(one, members),
        threshold=f"supported if the number, with its whole interval, is {one.rule}",
        meaning=_meaning(network, words, one, verdict, first),
        next_step=_next_step(one if first is None else first, one, verdict),
        caveats=_caveats(one_run, one, verdict),
        statement=without_network(words.hypothesis),
        evidence=EVIDENCE,
        effect_of=first.condition if first is not None and verdict is Verdict.SUPPORTED else "",
        # The finding on the network as a whole names the conditions that it does not have.
        length=Length.FULL if verdict is Verdict.CONTRADICTED else Length.STANDARD,
        bad_if=None if words.harmless else Verdict.SUPPORTED,
    )


def _caveats(one_run: Run, one: Reading, verdict: Verdict) -> tuple[str, ...]:
    normalized = one.condition == "exploding" and _has_normalization(one_run)
    return (
        RECORDED_STEPS_ONLY if one.low is None else LAST_STEPS_ONLY,
        *((BEHIND_NORMALIZATION,) if normalized else ()),
        # Why a verdict is open, its meaning says.
        *((one.note,) if one.note and verdict is not Verdict.INCONCLUSIVE else ()),
    )


def _has_normalization(one_run: Run) -> bool:
    return bool((one_run.layers["role"] == "normalization").any())


def _estimates(one: Reading, members: list[tuple[Run, Reading]]) -> tuple[Estimate, ...]:
    name = Said(one.quantity)
    if one.layer == INPUT:
        name = Said("{quantity} (at the input)", quantity=name)
    elif one.layer:
        name = Said("{quantity} (layer {layer})", quantity=name, layer=one.layer)
    # The table of conditions names this run.
    of = f"; the worst of {len(members)} runs" if len(members) > 1 else ""
    estimates = [Estimate(name, one.value, one.low, one.high, method=one.method + of)]
    if one.early_value is not None:
        estimates.append(
            Estimate("the same in the first steps", one.early_value, method="median, no interval")
        )
    if len(members) > 1:
        verdicts = [reading.verdict for _, reading in members]
        estimates += [
            Estimate(
                f"runs that {words}, of {len(members)}",
                float(verdicts.count(one_verdict)),
                method="count, no interval",
            )
            for words, one_verdict in (
                ("have it", Verdict.SUPPORTED),
                ("leave it open", Verdict.INCONCLUSIVE),
            )
        ]
    return tuple(estimates)


def _first_link(condition: str, chains: Sequence[Chain]) -> Reading | None:
    """The first link of the chain in which `condition` is a later one; None if there is none."""
    firsts = [
        chain.links[0]
        for chain in chains
        if condition in [one.condition for one in chain.links[1:]]
    ]
    return firsts[0] if firsts else None


def _meaning(
    network: str, words: Condition, one: Reading, verdict: Verdict, first: Reading | None
) -> str:
    clause = {
        Verdict.SUPPORTED: words.holds,
        Verdict.CONTRADICTED: words.fails,
        Verdict.INCONCLUSIVE: words.unknown,
    }[verdict]
    if one.value is None:
        reason = one.note[:1].lower() + one.note[1:].removesuffix(".")
        return sentence(
            [
                NetworkStatement(
                    network, clause, detail=reason or "no finite number could be computed"
                )
            ]
        )
    amount = number(one.value)
    if one.low is not None:
        amount = with_interval(one.value, one.low, one.high)
    said = message(one.said) if one.said else _amount_of(one, amount)
    if one.held_early and verdict is Verdict.CONTRADICTED:
        said = Said(
            "{said}; it was so in the first steps only ({amount})",
            said=said,
            amount=number(one.early_value or 0),
        )
    elif verdict is Verdict.SUPPORTED and one.when:
        said = Said("{said}, {when}", said=said, when=one.when)
    text = sentence([NetworkStatement(network, clause, said)])
    holds = verdict is Verdict.SUPPORTED
    more = [
        one.cause if holds else "",
        one.note if verdict is Verdict.INCONCLUSIVE else "",
        # What an effect is of is known, and nothing else is looked for.
        Said("This is an effect of what came first: {cause}.", cause=link_clause(first))
        if holds and first is not None
        else "",
        one.otherwise if first is None and verdict is not Verdict.CONTRADICTED else "",
    ]
    return Joined([text, *map(message, more)])


def _amount_of(one: Reading, amount: str) -> str:
    quantity = Said(one.quantity)
    if one.layer == INPUT:
        return Said("the {quantity} is {amount} at the input", quantity=quantity, amount=amount)
    if one.layer:
        template = message("the {quantity} is {amount} at layer {layer}")
        return Said(template, quantity=quantity, amount=amount, layer=one.layer)
    return Said("the {quantity} is {amount}", quantity=quantity, amount=amount)


def _next_step(first: Reading, one: Reading, verdict: Verdict) -> str:
    """What to do about `one`, which is an effect of `first` if it is another one."""
    return {
        Verdict.SUPPORTED: first.next_step or CONDITIONS[first.condition].next_step,
        Verdict.CONTRADICTED: LOOK_ELSEWHERE,
        Verdict.INCONCLUSIVE: one.next_step or "Record more steps, then ask again.",
    }[verdict]
