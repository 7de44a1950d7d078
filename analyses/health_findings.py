"""From readings of single runs to findings on a network: joint verdicts, numbers and words."""

from analyses.health_conditions import CONDITIONS, Condition
from analyses.health_reading import Reading
from analyses.result import Estimate, Finding, Verdict
from analyses.wording import between, listing, number, slug
from gradflow.runs.reader import Run

HARMLESS = {"noisy"}  # slows training down at worst: no illness by itself
WINDOW = (
    "Only recorded steps are judged, by medians over the last of them; the interval takes them as "
    "independent, so that it is too narrow where they move together."
)
NORMALIZED = (
    "Behind batch normalization gradients grow toward the input at initialization by about 1.2 a "
    "layer (Yang et al. 2019), and the update of a normalized weight does not depend on its scale: "
    "growth there is less harmful than elsewhere."
)
Readings = dict[str, list[tuple[Run, Reading]]]


def joint_verdict(condition: str, readings: list[Reading]) -> Verdict:
    """Of several runs: supported from half of them on, contradicted where none has it."""
    count = sum(one.verdict is Verdict.SUPPORTED for one in readings)
    clear = sum(one.verdict is Verdict.CONTRADICTED for one in readings)
    if count and (2 * count >= len(readings) or condition == "non-finite"):
        return Verdict.SUPPORTED
    return Verdict.CONTRADICTED if 2 * clear > len(readings) and not count else Verdict.INCONCLUSIVE


def worst(members: list[tuple[Run, Reading]]) -> tuple[Run, Reading]:
    """The run closest to having the condition, of those whose verdict is the joint one."""
    joint = joint_verdict(members[0][1].condition, [reading for _, reading in members])

    def closeness(member: tuple[Run, Reading]) -> tuple[bool, float]:
        one = member[1]
        value = one.value if one.value is not None else one.threshold
        return one.verdict is not joint, value if one.rule.startswith("below") else -value

    return min(members, key=closeness)


def condition_finding(network: str, condition: str, members: list[tuple[Run, Reading]]) -> Finding:
    """The finding on one condition of `network`, from the reading of each of its runs."""
    words = CONDITIONS[condition]
    one_run, one = worst(members)
    verdict = joint_verdict(one.condition, [reading for _, reading in members])
    return Finding(
        key=slug(f"{one.condition}-{network}"),
        network=network,
        hypothesis=words.holds.format(network) + ".",
        contradicted_by=words.contradicted_by,
        verdict=verdict,
        estimates=_estimates(one_run, one, members),
        threshold=f"supported where the number, with its whole interval, is {one.rule}",
        meaning=_meaning(network, words, one, verdict),
        next_step=_next_step(words, verdict),
        caveats=_caveats(one_run, one),
    )


def _caveats(one_run: Run, one: Reading) -> tuple[str, ...]:
    normalized = one.condition == "exploding" and _has_normalization(one_run)
    return (WINDOW, *((NORMALIZED,) if normalized else ()), *((one.note,) if one.note else ()))


def _has_normalization(one_run: Run) -> bool:
    return bool((one_run.layers["role"] == "normalization").any())


def _estimates(
    one_run: Run, one: Reading, members: list[tuple[Run, Reading]]
) -> tuple[Estimate, ...]:
    place = f" (layer {one.layer})" if one.layer else ""
    estimates = [
        Estimate(
            one.quantity + place,
            one.value,
            one.low,
            one.high,
            method=f"{one.method}; {one_run.name}",
        )
    ]
    if one.early is not None:
        estimates.append(
            Estimate("the same in the first steps", one.early, method="median, no interval")
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
    sentence = {
        Verdict.SUPPORTED: words.holds,
        Verdict.CONTRADICTED: words.fails,
        Verdict.INCONCLUSIVE: words.unknown,
    }[verdict].format(network)
    if one.value is None:
        return f"{sentence}: {one.note or 'no finite number could be had.'}"
    place = f" at layer {one.layer}" if one.layer else ""
    interval = "" if one.low is None else f" {between(one.low, one.high)}"
    early = ""
    if one.was_early and verdict is Verdict.CONTRADICTED:
        early = f"; it was so in the first steps only ({number(one.early or 0)})"
    elif verdict is Verdict.SUPPORTED and one.when:
        early = f", {one.when}"
    return f"{sentence}: the {one.quantity} is {number(one.value)}{interval}{place}{early}."


def _next_step(words: Condition, verdict: Verdict) -> str:
    return {
        Verdict.SUPPORTED: words.next_step,
        Verdict.CONTRADICTED: "Look for another cause: this one is not at work here.",
        Verdict.INCONCLUSIVE: "Record more steps, then ask again.",
    }[verdict]


def overall_finding(
    network: str, single: dict[str, Finding], left_out: list[str], subject: str = "the network {}"
) -> Finding:
    """Whether none of several conditions holds.

    Args:
        network: its name, which takes the place of the braces in `subject`.
        single: the finding on each condition asked for.
        left_out: conditions that were not asked for.
        subject: what is called healthy, in words.
    """
    name = subject.format(network)
    asked = {key: one for key, one in single.items() if key not in HARMLESS}
    ill = [key for key, one in asked.items() if one.verdict is Verdict.SUPPORTED]
    open_ones = [key for key, one in asked.items() if one.verdict is Verdict.INCONCLUSIVE]
    conditions = listing(list(asked))
    if ill:
        verdict, meaning = Verdict.CONTRADICTED, f"{network} is not healthy: {listing(ill)}"
    elif open_ones or not asked:
        verdict = Verdict.INCONCLUSIVE
        meaning = f"Whether {name} can be called healthy is left open by {listing(open_ones)}"
    else:
        verdict = Verdict.SUPPORTED
        meaning = f"{network} shows none of the conditions asked for ({conditions})"
    unasked = f"Not asked, for want of records: {listing(left_out)}." if left_out else (
        "Every condition was asked for."
    )  # fmt: skip
    return Finding(
        key=slug(f"healthy-{network}"),
        network=network,
        hypothesis=f"{name[0].upper()}{name[1:]} can be called healthy.",
        contradicted_by="One condition that is supported.",
        verdict=verdict,
        estimates=(
            Estimate(
                f"conditions found, of {len(asked)} asked for",
                float(len(ill)),
                method="count, no interval; each condition has its own finding",
            ),
        ),
        threshold="supported where every condition asked for is contradicted",
        meaning=f"{meaning}.",
        next_step=(
            single[ill[0]].next_step
            if ill
            else "Look at accuracy and loss: what is asked here says nothing of them."
        ),
        caveats=(
            unasked,
            "Several conditions are asked at once: the more, the likelier one is found by chance.",
        ),
    )
