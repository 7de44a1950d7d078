"""Which conditions of one run follow from one another, and which of them came first."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analyses.health.conditions import CONDITIONS
from analyses.health.readings import Reading, window_size
from analyses.wording.translatable import Joined, Numeral, Said, message
from gradflow.runs.reading.run import Run


@dataclass(frozen=True)
class Chain:
    """Conditions of one run, the first link first; each other one is an effect of one before."""

    links: tuple[Reading, ...]

    @property
    def clause(self) -> str:
        """The chain in words: "first ... (from step 14 on), then ..."."""
        first, *others = map(link_clause, self.links)
        then = [Said(", then {clause}", clause=one) for one in others]
        return Said("first {clause}{then}", clause=first, then=Joined(then, ""))


def link_clause(one: Reading) -> str:
    """What `one` is about, with its place and the step from which on it holds."""
    words = CONDITIONS[one.condition]
    several = " to " in one.layer or " and " in one.layer
    place = ""
    if one.layer and not one.link:
        place = Said("layers {layer}" if several else "layer {layer}", layer=one.layer)
    since = ""
    if one.since is not None or one.tells_when:
        template = message("in step {step}" if one.tells_when else "from step {step} on")
        since = Said(template, step=Numeral(f"{one.since}"))
    where = Joined((place, since), ", ")
    clause = message(one.link or words.link or words.holds)
    return Said("{clause} ({where})", clause=clause, where=where) if where else clause


def chains_of(run: Run, found: Sequence[Reading]) -> list[Chain]:
    """The chains among the conditions `found` in `run`, the one that began first at the front.

    One condition is an effect of another if that leads to it (`Condition.leads_to`) and did not
    begin later. If the recording does not show when one of them began, only the first counts.
    """
    order = {key: place for place, key in enumerate(CONDITIONS)}
    causes = {
        one.condition: [
            other
            for other in found
            if one.condition in CONDITIONS[other.condition].leads_to and _in_time(other, one, run)
        ]
        for one in found
    }

    def begin(one: Reading) -> tuple[float, int]:
        return np.inf if one.since is None else one.since, order[one.condition]

    def first_link(one: Reading) -> Reading:
        return min((first_link(cause) for cause in causes[one.condition]), key=begin, default=one)

    def place(one: Reading) -> int:
        return max((place(cause) + 1 for cause in causes[one.condition]), default=0)

    chains: dict[str, list[Reading]] = {}
    for one in sorted(found, key=lambda one: (place(one), begin(one))):
        chains.setdefault(first_link(one).condition, []).append(one)
    told = [Chain(tuple(links)) for links in chains.values() if len(links) > 1]
    return sorted(told, key=lambda chain: begin(chain.links[0]))


def _in_time(cause: Reading, effect: Reading, run: Run) -> bool:
    """Whether `cause` did not begin later than `effect`, as far as the recording shows."""
    if cause.since is None or effect.since is None:
        return True
    latest = effect.since
    if CONDITIONS[effect.condition].shows_late:
        latest = max(latest, _end_of_first_steps(run))
    return cause.since <= latest


def _end_of_first_steps(run: Run) -> int:
    steps = np.unique(run.steps["step"].to_numpy())
    return int(steps[window_size(len(steps)) - 1]) if len(steps) else 0
