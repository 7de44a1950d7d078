"""Findings on a network from the readings of its runs: joint verdicts, numbers and words."""

from analyses.health.condition import Condition
from analyses.health.conditions import CONDITIONS
from analyses.health.readings import Reading
from analyses.result import Estimate, Finding, Verdict
from analyses.wording.numbers import number, with_interval
from analyses.wording.phrases import listing, plural, slug, with_network, without_network
from analyses.wording.sentences import NetworkStatement, sentence
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
HEALTHY_NETWORK = "The network[ {}] can be called healthy."
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


def condition_finding(network: str, condition: str, members: list[tuple[Run, Reading]]) -> Finding:
    """The finding on one condition of `network`, from the reading of each of its runs."""
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
        meaning=_meaning(network, words, one, verdict),
        next_step=_next_step(words, one, verdict),
        caveats=_caveats(one_run, one),
        statement=without_network(words.hypothesis),
        evidence=EVIDENCE,
    )


def _caveats(one_run: Run, one: Reading) -> tuple[str, ...]:
    normalized = one.condition == "exploding" and _has_normalization(one_run)
    return (
        RECORDED_STEPS_ONLY if one.low is None else LAST_STEPS_ONLY,
        *((BEHIND_NORMALIZATION,) if normalized else ()),
        *((one.note,) if one.note else ()),
    )


def _has_normalization(one_run: Run) -> bool:
    return bool((one_run.layers["role"] == "normalization").any())


def _estimates(one: Reading, members: list[tuple[Run, Reading]]) -> tuple[Estimate, ...]:
    place = f" (layer {one.layer})" if one.layer else ""
    place = " (at the input)" if one.layer == INPUT else place
    # The table of conditions names this run.
    of = f"; the worst of {len(members)} runs" if len(members) > 1 else ""
    estimates = [
        Estimate(one.quantity + place, one.value, one.low, one.high, method=one.method + of)
    ]
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


def _meaning(network: str, words: Condition, one: Reading, verdict: Verdict) -> str:
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
    place = f" at layer {one.layer}" if one.layer else ""
    place = " at the input" if one.layer == INPUT else place
    amount = number(one.value)
    if one.low is not None:
        amount = with_interval(one.value, one.low, one.high)
    early = ""
    if one.held_early and verdict is Verdict.CONTRADICTED:
        early = f"; it was so in the first steps only ({number(one.early_value or 0)})"
    elif verdict is Verdict.SUPPORTED and one.when:
        early = f", {one.when}"
    said = f"{one.said or f'the {one.quantity} is {amount}{place}'}{early}"
    text = sentence([NetworkStatement(network, clause, said)])
    return f"{text} {one.cause}" if one.cause and verdict is Verdict.SUPPORTED else text


def _next_step(words: Condition, one: Reading, verdict: Verdict) -> str:
    return {
        Verdict.SUPPORTED: words.next_step,
        Verdict.CONTRADICTED: "Look for another cause: this one is not at work here.",
        Verdict.INCONCLUSIVE: one.next_step or "Record more steps, then ask again.",
    }[verdict]


def overall_finding(
    network: str,
    by_condition: dict[str, Finding],
    left_out: list[str],
    hypothesis: str = HEALTHY_NETWORK,
) -> Finding:
    """Whether none of several conditions holds.

    Args:
        network: its name.
        by_condition: the finding on each condition that was checked.
        left_out: conditions that were not checked.
        hypothesis: names what is healthy; the network's name in brackets, as `named` of
            `analyses.wording.phrases` expects.
    """
    asked = {key: one for key, one in by_condition.items() if key not in HARMLESS}
    ill = [key for key, one in asked.items() if one.verdict is Verdict.SUPPORTED]
    open_ones = [key for key, one in asked.items() if one.verdict is Verdict.INCONCLUSIVE]
    unchecked = (
        f"Not checked, because nothing was recorded for it: {listing(left_out)}."
        if left_out
        else "Every condition was checked."
    )
    return Finding(
        key=slug(f"healthy-{network}"),
        network=network,
        hypothesis=with_network(hypothesis, network),
        contradicted_by="One condition that is supported.",
        verdict=(
            Verdict.CONTRADICTED
            if ill
            else Verdict.INCONCLUSIVE
            if open_ones or not asked
            else Verdict.SUPPORTED
        ),
        estimates=(
            Estimate(
                f"conditions found, of {len(asked)} checked",
                float(len(ill)),
                method="count, no interval; each condition is compared with its own bound",
            ),
        ),
        threshold="supported if every checked condition is contradicted",
        meaning=sentence([NetworkStatement(network, overall_clause(by_condition))]),
        next_step=(
            by_condition[ill[0]].next_step
            if ill
            else "Look at accuracy and loss: this check does not cover them."
        ),
        caveats=(
            unchecked,
            "Several conditions are tested at once: the more, the likelier one is found by chance.",
        ),
        statement=without_network(hypothesis),
        evidence=EVIDENCE,
    )


def overall_clause(by_condition: dict[str, Finding]) -> str:
    """Which of the conditions in `by_condition` hold, as a clause that follows "In <network>"."""
    asked = {key: one.verdict for key, one in by_condition.items() if key not in HARMLESS}
    ill = [key for key, verdict in asked.items() if verdict is Verdict.SUPPORTED]
    open_ones = [key for key, verdict in asked.items() if verdict is Verdict.INCONCLUSIVE]
    count = f"of the {plural(len(asked), 'condition')} checked"
    if ill:
        return f"{len(ill)} {count} {'was' if len(ill) == 1 else 'were'} found: {listing(ill)}"
    if open_ones:
        return f"none {count} is certain, but {listing(open_ones)} cannot be ruled out"
    if not asked:
        return "no condition could be checked"
    return f"none {count} was found ({listing(list(asked))})"
