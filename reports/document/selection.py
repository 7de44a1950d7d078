"""What a report of each length holds: one rule for sections, findings, figures and tables.

Each of them declares the shortest report that has it (`analyses.result.Length`). What is not
selected is not drawn. The numbers of all lengths are the same, for all come from the same outcomes.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from analyses.registry import Outcome
from analyses.result import Figure, Length
from analyses.wording.phrases import listing
from analyses.wording.translatable import Said, message
from gradflow.errors import ConfigurationError
from reports.elements import UnansweredElement

# The lengths that can be asked for, by their names in options.
LENGTHS = {one.name.lower(): one for one in Length if one is not Length.DATA}
DEFAULT_LENGTH = "standard"
# The first figure of this analysis opens the report; the analysis has no section of its own.
OVERVIEW = "overview"


class _Placed(Protocol):
    @property
    def length(self) -> Length: ...


_Part = TypeVar("_Part", bound=_Placed)


def parse_length(text: str) -> Length:
    """The length called `text`.

    Raises `ConfigurationError` if there is none of that name.
    """
    if text not in LENGTHS:
        raise ConfigurationError(
            f"the length {text!r} is unknown: choose from {', '.join(LENGTHS)}"
        )
    return LENGTHS[text]


def shown(parts: Iterable[_Part], length: Length) -> tuple[_Part, ...]:
    """Those of `parts` that a report of `length` holds."""
    return tuple(one for one in parts if one.length <= length)


def figures_shown(outcome: Outcome, length: Length) -> tuple[Figure, ...]:
    """The figures of `outcome` that a report of `length` draws."""
    if outcome.result is None:
        return ()
    if outcome.key == OVERVIEW:
        return outcome.result.figures[:1]
    return shown(outcome.result.figures, length) if outcome.length <= length else ()


def sections_of(outcomes: Sequence[Outcome], length: Length) -> list[Outcome]:
    """What has a section in a report of `length`, with the parts that are in it.

    An analysis that failed has one in every length. One that could not be asked has none: it is
    among the `unanswered`.
    """
    return [
        _selected(outcome, length)
        for outcome in outcomes
        if outcome.key != OVERVIEW
        and (outcome.failure or (outcome.result and outcome.length <= length))
    ]


def _selected(outcome: Outcome, length: Length) -> Outcome:
    result = outcome.result
    if result is None:
        return outcome
    kept = replace(
        result,
        findings=shown(result.findings, length),
        figures=shown(result.figures, length),
        tables=shown(result.tables, length),
    )
    return replace(outcome, result=kept)


def unanswered(
    outcomes: Sequence[Outcome], networks: Collection[str]
) -> tuple[UnansweredElement, ...]:
    """What the recording does not answer, by the reason: whole analyses, and parts of others.

    Networks are named only where something is not answered of some of `networks`.
    """
    by_reason: dict[str, dict[str, list[str]]] = {}
    for outcome in outcomes:
        if outcome.not_applicable and outcome.key != OVERVIEW:
            by_reason.setdefault(outcome.not_applicable, {})[outcome.title] = []
        for one in outcome.result.unanswered if outcome.result else ():
            asked = by_reason.setdefault(one.reason, {}).setdefault(one.about, [])
            asked += [one.network] if one.network else []

    def of_some(about: str, named: Sequence[str]) -> str:
        if set(named) in (set(), set(networks)):
            return about
        return Said("{about} in {networks}", about=message(about), networks=listing(named))

    return tuple(
        UnansweredElement(
            _capitalized(reason), tuple(of_some(about, named) for about, named in asked.items())
        )
        for reason, asked in by_reason.items()
    )


def _capitalized(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
