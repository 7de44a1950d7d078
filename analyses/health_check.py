"""Is the network healthy: do gradients, units and updates do what training needs?

Needs no accuracy, so that it can be asked of any traced model. What would count against health:
one condition (vanishing, exploding, shattered, dead, saturated, non-finite, stalled) whose number
lies beyond its bound in the last recorded steps.
"""

import pandas as pd

from analyses.frames import by_network
from analyses.health_conditions import CONDITIONS, Condition, Thresholds, read_health
from analyses.health_figures import health_figure
from analyses.health_reading import Reading
from analyses.registry import Analysis, NotApplicableError
from analyses.result import AnalysisResult, Estimate, Finding, Table, Verdict
from analyses.wording import between, listing, number, plural, slug
from gradflow.runs.reader import Experiment, Run

HARMLESS = {"noisy"}  # slows training down at worst: no illness by itself
WINDOW = (
    "Only recorded steps are judged, by medians over the last of them; the interval takes them as "
    "independent, so that it is too narrow where they move together."
)
Readings = dict[str, list[tuple[Run, Reading]]]


def run(experiment: Experiment, bounds: Thresholds | None = None) -> AnalysisResult:
    """Read every condition of every network against its bound (`bounds`, defaults by default).

    Raises `NotApplicableError` where no run recorded a layer or a parameter at a step.
    """
    networks = {
        name: found
        for name, runs in by_network(list(experiment.runs)).items()
        if (found := _readings(runs, bounds))
    }
    if not networks:
        raise NotApplicableError(
            "no run recorded activations, gradients or parameters (these tables are empty), one "
            "of which this question needs"
        )
    findings = tuple(
        finding for name, found in networks.items() for finding in _findings(name, found)
    )
    healthy = [finding for finding in findings if finding.key.startswith("healthy-")]
    table = pd.concat([_table(name, found) for name, found in networks.items()])
    return AnalysisResult(
        summary=" ".join(finding.meaning for finding in healthy),
        findings=findings,
        figures=(health_figure(table, list(CONDITIONS)),),
        tables=(Table("conditions", "Each condition, its number and its bound", _shown(table)),),
        method=(
            "Each condition is a number held against a bound, at the layer where it is worst: its "
            "median over the last third of the recorded steps (6 at least, "
            f"{(bounds or Thresholds()).last_steps} at most), with a distribution-free interval, "
            "and beside it the median over as many first steps. Gradients are compared between "
            "tensors of one shape only; in residual networks along the trunk, at the inputs of "
            "the additions. The derivative of tanh and sigmoid comes from recorded moments, "
            "1 - E[y^2] and 4 (E[y] - E[y^2]). Of several runs of a network at least half must "
            "have a condition (for values that are not finite, any)."
        ),
        sources=tuple(condition.source for condition in CONDITIONS.values()),
    )


def _readings(runs: list[Run], bounds: Thresholds | None) -> Readings:
    found: Readings = {}
    for one in runs:
        for reading in read_health(one, bounds) if len(one.layers) else []:
            found.setdefault(reading.condition, []).append((one, reading))
    return {name: found[name] for name in CONDITIONS if name in found}


def joint_verdict(condition: str, readings: list[Reading]) -> Verdict:
    """Of several runs: supported from half of them on, contradicted where none has it."""
    count = sum(one.verdict is Verdict.SUPPORTED for one in readings)
    clear = sum(one.verdict is Verdict.CONTRADICTED for one in readings)
    if count and (2 * count >= len(readings) or condition == "non-finite"):
        return Verdict.SUPPORTED
    return Verdict.CONTRADICTED if 2 * clear > len(readings) and not count else Verdict.INCONCLUSIVE


def worst(members: list[tuple[Run, Reading]]) -> tuple[Run, Reading]:
    """The run that comes closest to having the condition."""
    order = (Verdict.SUPPORTED, Verdict.INCONCLUSIVE, Verdict.CONTRADICTED)

    def closeness(member: tuple[Run, Reading]) -> tuple[int, float]:
        one = member[1]
        value = one.value if one.value is not None else one.threshold
        side = 1 if one.rule.startswith("below") else -1
        return order.index(one.verdict), side * value

    return min(members, key=closeness)


def _findings(network: str, found: Readings) -> tuple[Finding, ...]:
    single = tuple(_finding(network, CONDITIONS[name], found[name]) for name in found)
    return (_overall(network, found, single), *single)


def _finding(network: str, words: Condition, members: list[tuple[Run, Reading]]) -> Finding:
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
        caveats=(WINDOW, *((one.note,) if one.note else ())),
    )


def _estimates(
    one_run: Run, one: Reading, members: list[tuple[Run, Reading]]
) -> tuple[Estimate, ...]:
    place = f" ({one.layer})" if one.layer else ""
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
        count = sum(reading.verdict is Verdict.SUPPORTED for _, reading in members)
        estimates.append(
            Estimate(
                f"runs that have it, of {len(members)}", float(count), method="count, no interval"
            )
        )
    return tuple(estimates)


def _meaning(network: str, words: Condition, one: Reading, verdict: Verdict) -> str:
    sentence = {
        Verdict.SUPPORTED: words.holds,
        Verdict.CONTRADICTED: words.fails,
        Verdict.INCONCLUSIVE: words.unknown,
    }[verdict].format(network)
    if one.value is None:
        return f"{sentence}: {one.note or 'no finite number could be had.'}"
    place = f" at {one.layer}" if one.layer else ""
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


def _overall(network: str, found: Readings, single: tuple[Finding, ...]) -> Finding:
    asked = {name: one for name, one in zip(found, single, strict=True) if name not in HARMLESS}
    ill = [name for name, one in asked.items() if one.verdict is Verdict.SUPPORTED]
    open_ones = [name for name, one in asked.items() if one.verdict is Verdict.INCONCLUSIVE]
    left_out = [name for name in CONDITIONS if name not in found]
    if ill:
        verdict, meaning = Verdict.CONTRADICTED, f"{network} is not healthy: {listing(ill)}"
    elif open_ones or not asked:
        verdict = Verdict.INCONCLUSIVE
        meaning = f"Whether {network} is healthy cannot be told: {listing(open_ones)} left open"
    else:
        verdict = Verdict.SUPPORTED
        meaning = f"{network} shows none of {plural(len(asked), 'condition')} asked for"
    unasked = f"Not asked, for want of records: {listing(left_out)}." if left_out else (
        "Every condition was asked for."
    )  # fmt: skip
    return Finding(
        key=slug(f"healthy-{network}"),
        network=network,
        hypothesis=f"{network} is healthy.",
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
            single[list(found).index(ill[0])].next_step
            if ill
            else "Look at accuracy and loss: what is asked here says nothing of them."
        ),
        caveats=(
            unasked,
            "Several conditions are asked at once; one in many may be found by chance.",
        ),
    )


def _table(network: str, found: Readings) -> pd.DataFrame:
    rows = []
    for name, members in found.items():
        one_run, one = worst(members)
        verdict = joint_verdict(name, [reading for _, reading in members])
        rows.append(
            {
                "network": network,
                "condition": name,
                "verdict": verdict,
                "layer": one.layer,
                "value": one.value,
                "low": one.low,
                "high": one.high,
                "first steps": one.early,
                "condition holds": one.rule,
                "when": one.when,
                "run": one_run.name,
            }
        )
    return pd.DataFrame(rows)


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    named = table.rename(columns={"low": "95 % low", "high": "95 % high"})
    words = {
        Verdict.SUPPORTED: "yes",
        Verdict.CONTRADICTED: "no",
        Verdict.INCONCLUSIVE: "can't tell",
    }
    return named.assign(verdict=[words[one] for one in named["verdict"]]).reset_index(drop=True)


ANALYSIS = Analysis(
    key="health_check",
    title="Health check",
    question="Do gradients, units and updates of the network do what training needs?",
    run=run,
)
