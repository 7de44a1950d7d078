"""Is the network healthy: do gradients, units and updates do what training needs?

The check needs no accuracy, so it works for any traced model. Health is contradicted by one
condition whose number lies beyond its bound in the last recorded steps: parameters that no
gradient reaches or that are never updated; gradients that vanish, explode, are shattered or clipped
away; units that are dead or saturated; values that are not finite; weights that hardly move.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from analyses.health.chains import Chain
from analyses.health.condition import NotAsked
from analyses.health.conditions import CONDITIONS, Thresholds, ask_all
from analyses.health.conditions.reach import unrecorded_layers
from analyses.health.figures import health_figure
from analyses.health.findings import (
    Readings,
    condition_finding,
    joint_verdict,
    network_chains,
    worst_run,
)
from analyses.health.overall import Unasked, overall_clause, overall_finding
from analyses.reading.runs import by_network
from analyses.registry import Analysis, NotApplicableError
from analyses.result import AnalysisResult, Finding, Length, Table, Unanswered, Verdict
from analyses.wording.sentences import NetworkStatement, sentence
from gradflow.runs.reading.run import Experiment, Run

# The gradient profile reports these, over every step and not only the last ones.
ASKED_OF_ALL_TRAINING = {key for key, one in CONDITIONS.items() if one.told_elsewhere}
# Mistakes in the code of a training. Where they are absent, the table and the first claim say so.
TOLD_IF_PRESENT = {key for key, one in CONDITIONS.items() if one.only_if_present}


def run(experiment: Experiment, bounds: Thresholds | None = None) -> AnalysisResult:
    """Compare every condition of every network with its bound; `bounds` replaces the defaults.

    Raises `NotApplicableError` if no run recorded a layer or a parameter at a step.
    """
    networks = _networks(experiment, bounds)
    findings = {name: _findings(name, found) for name, found in networks.items()}
    told = [
        NetworkStatement(
            name,
            _clause(found, single),
        )
        for (name, (_, *single)), found in zip(findings.items(), networks.values(), strict=True)
    ]
    together = {"healthy": sentence(told)}
    present = {
        one.topic
        for found in findings.values()
        for one in found
        if one.verdict is not Verdict.CONTRADICTED
    }
    untold = {*ASKED_OF_ALL_TRAINING, *(TOLD_IF_PRESENT - present)}
    table = pd.concat([_table(name, one.readings) for name, one in networks.items()])
    silent = pd.concat([_silent(name, one.unasked) for name, one in networks.items()])
    return AnalysisResult(
        summary=together["healthy"],
        findings=tuple(
            one
            for name, found in findings.items()
            for one in _without_unasked(name, networks[name], found)
            if one.topic not in untold
        ),
        figures=(health_figure(table, list(CONDITIONS)),),
        tables=(
            Table("conditions", "Each condition, its number and its bound", _shown(table)),
            Table(
                "not-asked",
                "What was not asked, and why",
                silent.reset_index(drop=True),
                length=Length.DATA,  # in words: `unanswered`
            ),
        ),
        method=(
            "Each condition is a number compared with a bound, at the layer where it is worst: its "
            "median over the last third of the recorded steps (6 at least, "
            f"{(bounds or Thresholds()).last_steps} at most), with a distribution-free interval, "
            "and in addition the median over as many first steps. "
            f"{_methods()} Of several runs of a network at least half must have a condition (for "
            "values that are not finite, any)."
        ),
        sources=tuple(condition.source for condition in CONDITIONS.values()),
        together=together,
        unanswered=tuple(
            Unanswered(asked, reason, name)
            for name, asked, reason in silent.itertuples(index=False)
        ),
    )


def _methods() -> str:
    return " ".join(one.method for one in CONDITIONS.values() if one.method)


def all_findings(experiment: Experiment, bounds: Thresholds | None = None) -> tuple[Finding, ...]:
    """The findings on each network as a whole and on each of its conditions.

    These are the findings of `run`, and in addition vanishing and exploding in the last steps.
    `run` leaves these two to the gradient profile, which tests them over all of training. Both
    functions count them when they judge whether a network is healthy.

    Raises `NotApplicableError` if no run recorded a layer or a parameter at a step.
    """
    return tuple(
        finding
        for name, found in _networks(experiment, bounds).items()
        for finding in _findings(name, found)
    )


def not_asked(experiment: Experiment) -> dict[str, dict[str, NotAsked]]:
    """The conditions that were not asked of each network, by network and key.

    Raises `NotApplicableError` if no run recorded a layer or a parameter at a step.
    """
    return {
        name: {one.condition: one for one in found.unasked.conditions}
        for name, found in _networks(experiment, None).items()
    }


@dataclass(frozen=True)
class Asked:
    """What was read from the runs of one network, and what was not."""

    readings: Readings
    unasked: Unasked
    chains: list[Chain]


def _clause(found: Asked, single: Sequence[Finding]) -> str:
    """Which conditions hold; why some were not asked a report tells at its end."""
    by_condition = {one.topic: one for one in single}
    return overall_clause(by_condition, found.unasked, found.chains, reasons=False)


def _without_unasked(name: str, found: Asked, findings: tuple[Finding, ...]) -> list[Finding]:
    """`findings`, the first on the network as a whole, without what a report tells at its end."""
    overall, *single = findings
    unasked = found.unasked
    told = unasked.caveats if unasked.conditions else unasked.caveats[1:]
    kept = tuple(caveat for caveat in overall.caveats if caveat not in told)
    meaning = sentence([NetworkStatement(name, _clause(found, single))])
    return [replace(overall, caveats=kept, meaning=meaning), *single]


def _networks(experiment: Experiment, bounds: Thresholds | None) -> dict[str, Asked]:
    networks = {
        name: found
        for name, runs in by_network(list(experiment.runs)).items()
        if (found := _ask(runs, bounds)).readings
    }
    if not networks:
        raise NotApplicableError(
            "no run recorded activations, gradients or parameters (these tables are empty); this "
            "question needs one of them"
        )
    return networks


def _ask(runs: list[Run], bounds: Thresholds | None) -> Asked:
    found: Readings = {}
    reasons: dict[str, NotAsked] = {}
    layers: dict[str, str] = {}
    for one in runs:
        if not len(one.layers) and not len(one.parameters):
            continue
        answers = ask_all(one, bounds)
        for reading in answers.readings:
            found.setdefault(reading.condition, []).append((one, reading))
        for silent in answers.not_asked:
            reasons.setdefault(silent.condition, silent)
        layers |= unrecorded_layers(one)
    ordered = {name: found[name] for name in CONDITIONS if name in found}
    left = tuple(reasons[name] for name in CONDITIONS if name in reasons and name not in found)
    return Asked(ordered, Unasked(left, layers), network_chains(ordered))


def _findings(network: str, asked: Asked) -> tuple[Finding, ...]:
    single = {
        name: condition_finding(network, name, members, asked.chains)
        for name, members in asked.readings.items()
    }
    return (
        overall_finding(network, single, asked.unasked, asked.chains),
        *single.values(),
    )


def _silent(network: str, unasked: Unasked) -> pd.DataFrame:
    rows = [
        {"network": network, "not asked": one.condition, "for": one.reason}
        for one in unasked.conditions
    ] + [
        {"network": network, "not asked": f"anything of {name}", "for": f"it {reason}"}
        for name, reason in unasked.layers.items()
    ]
    return pd.DataFrame(rows, columns=["network", "not asked", "for"])


def _table(network: str, found: Readings) -> pd.DataFrame:
    rows = []
    for name, members in found.items():
        one_run, one = worst_run(members)
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
                "first steps": one.early_value,
                "condition holds": one.rule,
                "when": one.when,
                "since step": one.since if verdict is Verdict.SUPPORTED else None,
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
    return named.assign(
        verdict=[words[one] for one in named["verdict"]],
        **{"since step": named["since step"].astype("Int64")},
    ).reset_index(drop=True)


ANALYSIS = Analysis(
    key="health_check",
    title="Health check",
    question="Do gradients, units and updates of the network do what training needs?",
    run=run,
    background=(
        "Training needs gradients that reach every layer at a usable size, units that "
        "respond, and updates in proportion to the weights; each condition found here is "
        "one way in which that can fail."
    ),
    order=100,
)
