"""`gradflow.check`: raises if a run has a condition that it must not have, such as dead units."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradflow.errors import CheckFailedError, ConfigurationError
from gradflow.findings.answers import Answers, analyze
from gradflow.findings.sources import Source, experiment_of

if TYPE_CHECKING:
    from analyses.health.condition import NotAsked
    from analyses.registry import Outcome
    from analyses.result import Finding
    from gradflow.runs.reading.run import Experiment

PRESENT, UNKNOWN = "supported", "inconclusive"
_VERDICTS = (PRESENT, "contradicted", UNKNOWN)


@dataclass(frozen=True)
class Check:
    """What one name of `fail_on` found.

    Fields:
        name: the condition or finding, e.g. `dead`.
        fails_if: the verdict that fails.
        findings: what the name stands for, one a network.
        silent: networks that did not record what the condition needs.
        why_silent: why it was not asked of each of these, as a clause; empty where nothing was.
        to_ask: what to record so that it is asked, as a sentence; may be empty.
    """

    name: str
    fails_if: str
    findings: "tuple[Finding, ...]"
    silent: tuple[str, ...] = ()
    why_silent: tuple[str, ...] = ()
    to_ask: str = ""

    def __repr__(self) -> str:
        return f"Check({self.name!r}, {len(self.failing)} failing of {len(self.findings)} findings)"

    @property
    def failing(self) -> "tuple[Finding, ...]":
        """The findings whose verdict is the one that fails."""
        return tuple(one for one in self.findings if one.verdict == self.fails_if)

    @property
    def open(self) -> tuple[str, ...]:
        """A sentence for each network of which it cannot be told, though it was recorded."""
        return tuple(_plain(one.meaning) for one in self._open)

    @property
    def next_steps(self) -> tuple[str, ...]:
        """What would tell, for each sentence of `open`."""
        return tuple(_plain(one.next_step) for one in self._open)

    @property
    def _open(self) -> "list[Finding]":
        return [one for one in self.findings if one.verdict == UNKNOWN != self.fails_if]


@dataclass(frozen=True)
class Checks:
    """The names of `fail_on` with the verdict that fails, and whether an open question fails too.

    Made by `read_checks`.
    """

    wanted: tuple[tuple[str, str], ...]
    fail_on_unknown: bool = False

    def look(self, experiment: "Experiment", outcomes: "Sequence[Outcome]") -> tuple[Check, ...]:
        """What each name finds: conditions in `experiment`, other findings in `outcomes`.

        Raises `ConfigurationError`, with the known names, if a name is unknown.
        """
        conditions = _condition_findings(experiment) if self.of_conditions else ()
        not_asked = _not_asked(experiment) if conditions else {}
        others = [finding for one in outcomes if one.result for finding in one.result.findings]
        return tuple(
            _of_condition(name, verdict, experiment, conditions, not_asked)
            if name in _conditions()
            else _of_finding(name, verdict, others)
            for name, verdict in self.wanted
        )

    @property
    def of_conditions(self) -> bool:
        """Whether a condition is among the names."""
        return any(name in _conditions() for name, _ in self.wanted)

    @property
    def of_others(self) -> bool:
        """Whether a finding that is no condition is among the names."""
        return any(name not in _conditions() for name, _ in self.wanted)

    def require(self, experiment: "Experiment", outcomes: "Sequence[Outcome]") -> tuple[Check, ...]:
        """Like `look`; raises `CheckFailedError` if something fails."""
        checks = self.look(experiment, outcomes)
        failing = [(one.name, found) for one in checks for found in one.failing]
        told = [(f"{name}: {_plain(one.meaning)}", _plain(one.next_step)) for name, one in failing]
        if self.fail_on_unknown:
            told += [
                (f"{one.name}: {sentence}", step)
                for one in checks
                for sentence, step in zip(one.open, one.next_steps, strict=True)
            ]
            told += [
                (f"{one.name}: {network} did not record what shows it", one.to_ask)
                for one in checks
                for network in one.silent
            ]
        if told:
            sentences, next_steps = zip(*told, strict=True)
            raise CheckFailedError(sentences, [found for _, found in failing], next_steps)
        return checks


def check(
    runs: Source | Answers,
    fail_on: str | Collection[str] | None = None,
    *,
    fail_on_unknown: bool = False,
) -> tuple[Check, ...]:
    """Raise if a recorded training has a condition that it must not have; for tests and CI.

    Example:
        >>> gradflow.check("runs/mine", fail_on=("vanishing", "dead"))
        >>> gradflow.check("runs/mine", fail_on="healthy=contradicted")

    Args:
        runs: a run, an experiment, the folder or name of one, several of these, or what `analyze`
            returned.
        fail_on: conditions of the health check, such as dead or vanishing; each fails where it is
            present (verdict supported). By default those that spoil a training, which are all but
            unused, shattered and noisy. Also keys or topics of other findings with the verdict that
            fails, as in `healthy=contradicted`. A collection, or a text with commas.
        fail_on_unknown: whether it fails too if something cannot be told, or was not recorded.

    Returns what was found for each name.

    Raises `CheckFailedError` with the sentence of each finding that fails, `ConfigurationError`,
    with the known names, if a name is unknown, and `RunError` if there is no run or a damaged one.
    """
    experiment = runs.experiment if isinstance(runs, Answers) else experiment_of(runs)
    checks = read_checks(fail_on, fail_on_unknown=fail_on_unknown)
    if isinstance(runs, Answers):
        return checks.require(experiment, runs.outcomes)
    # Conditions are read from the run itself, without the analyses, which take long.
    outcomes = analyze(experiment).outcomes if checks.of_others else ()
    return checks.require(experiment, outcomes)


def read_checks(fail_on: str | Collection[str] | None, *, fail_on_unknown: bool = False) -> Checks:
    """The checks that `fail_on` names; by default those of conditions that spoil a training.

    Raises `ConfigurationError` if it names none, an unknown verdict, or something that is no
    condition without its verdict.
    """
    if fail_on is None:
        fail_on = _spoiling()
    entries = fail_on.split(",") if isinstance(fail_on, str) else list(fail_on)
    wanted = [_wanted(entry.strip()) for entry in entries if entry.strip()]
    if not wanted:
        raise ConfigurationError(f"no condition is named: choose from {', '.join(_conditions())}")
    return Checks(tuple(dict.fromkeys(wanted)), fail_on_unknown)


def _wanted(entry: str) -> tuple[str, str]:
    name, equals, verdict = (part.strip() for part in entry.partition("="))
    if equals and verdict not in _VERDICTS:
        raise ConfigurationError(
            f"the verdict {verdict!r} of {name!r} is unknown: choose from {', '.join(_VERDICTS)}"
        )
    if not equals and name not in _conditions():
        raise ConfigurationError(
            f"there is no condition {name!r}: choose from {', '.join(_conditions())}, or name "
            "another finding with the verdict that fails, as in healthy=contradicted"
        )
    return name, verdict or PRESENT


def _conditions() -> tuple[str, ...]:
    from analyses.health.conditions import CONDITIONS  # noqa: PLC0415 - slow to load

    return tuple(CONDITIONS)


def _spoiling() -> tuple[str, ...]:
    from analyses.health.conditions import CONDITIONS  # noqa: PLC0415 - slow to load

    return tuple(key for key, one in CONDITIONS.items() if one.spoils)


def _condition_findings(experiment: "Experiment") -> "tuple[Finding, ...]":
    from analyses.health.question import all_findings  # noqa: PLC0415 - slow to load
    from analyses.registry import NotApplicableError  # noqa: PLC0415 - slow to load

    try:
        return all_findings(experiment)
    except NotApplicableError:
        return ()


def _not_asked(experiment: "Experiment") -> "dict[str, dict[str, NotAsked]]":
    from analyses.health.question import not_asked  # noqa: PLC0415 - slow to load

    return not_asked(experiment)


def _of_condition(
    name: str,
    verdict: str,
    experiment: "Experiment",
    findings: "Sequence[Finding]",
    not_asked: "Mapping[str, Mapping[str, NotAsked]]",
) -> Check:
    from analyses.health.conditions import CONDITIONS  # noqa: PLC0415 - slow to load

    own = tuple(one for one in findings if one.topic == name)
    told = {one.network for one in own}
    reasons = {network: not_asked.get(network, {}).get(name) for network in experiment.networks}
    silent = {
        network: "" if one is None else one.reason
        for network, one in reasons.items()
        if network not in told and (one is None or one.applies)
    }
    to_ask = CONDITIONS[name].to_ask
    return Check(name, verdict, own, tuple(silent), tuple(silent.values()), to_ask)


def _of_finding(name: str, verdict: str, findings: "Sequence[Finding]") -> Check:
    own = tuple(one for one in findings if name in (one.topic, one.key))
    if not own:
        known = dict.fromkeys([*_conditions(), *(one.topic for one in findings)])
        raise ConfigurationError(
            f"there is no finding {name!r} here: choose from {', '.join(known)}"
        )
    return Check(name, verdict, own)


def _plain(sentence: str) -> str:
    """`sentence` for a terminal or log, without its no-break spaces."""
    return sentence.replace("\N{NO-BREAK SPACE}", " ")
