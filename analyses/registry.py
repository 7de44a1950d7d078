"""Finds all analyses and runs them over an experiment.

An analysis is a module of this package that defines `ANALYSIS`. There is no list of them: modules
are searched for that name. Other packages add analyses through the entry-point group
`gradflow.analyses`; each entry names an `Analysis`.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import walk_packages
from textwrap import shorten

from analyses.result import AnalysisResult, Length
from gradflow.errors import ConfigurationError, GradflowError
from gradflow.runs.reading.run import Experiment

ENTRY_POINT_GROUP = "gradflow.analyses"
_LONGEST_SAID = 300  # characters in the repr of an outcome


class NotApplicableError(Exception):
    """Raised by an analysis if the experiment did not record what it needs; says what."""


@dataclass(frozen=True)
class Analysis:
    """One question about an experiment.

    Fields:
        key: unique; letters, digits and underscores.
        title: a few words, for contents and headings.
        question: the question, with its question mark.
        run: from experiment to answer; raises `NotApplicableError` if it cannot be asked.
        background: one sentence that a reader new to the subject needs first.
        order: the place in a report among gradflow's own analyses, lowest first; analyses of other
            packages come last.
        comparing: whether it is asked only if several experiments are compared.
        length: the shortest report that has a section on it.
    """

    key: str
    title: str
    question: str
    run: Callable[[Experiment], AnalysisResult]
    background: str = ""
    order: int = 0
    comparing: bool = False
    length: Length = Length.STANDARD


@dataclass(frozen=True)
class Outcome:
    """The result of one analysis, or the reason why there is none."""

    key: str
    title: str
    question: str
    result: AnalysisResult | None = None
    not_applicable: str = ""
    failure: str = ""
    background: str = ""
    length: Length = Length.STANDARD

    def __repr__(self) -> str:
        said = self.result.summary if self.result else self.not_applicable or self.failure
        return f"Outcome({self.key!r}, {shorten(said, _LONGEST_SAID, placeholder=' …')!r})"

    def _repr_html_(self) -> str:
        from analyses.showing.cards import outcome_card  # noqa: PLC0415 - for notebooks only

        return outcome_card(self)


@cache
def built_in() -> tuple[Analysis, ...]:
    """gradflow's own analyses, in the order of a report."""
    home = Path(__file__).parent
    modules = (import_module(one.name) for one in walk_packages([str(home)], "analyses."))
    found = (getattr(module, "ANALYSIS", None) for module in modules)
    return tuple(sorted((one for one in found if one), key=lambda one: (one.order, one.key)))


def run_all(
    experiment: Experiment,
    only: Collection[str] = (),
    after_each: Callable[[Outcome], object] = lambda _: None,
    also: Iterable[Analysis] = (),
) -> tuple[Outcome, ...]:
    """Run every known analysis; a failure becomes an outcome that says so.

    `only` holds the keys of the analyses to run; empty for all. `after_each` is called with each
    outcome as soon as it is known. `also` holds analyses that are not registered.

    Raises `ConfigurationError` if `only` holds an unknown key, or `also` something that is no
    analysis or has the key of another.
    """
    own = [one for one in built_in() if experiment.members or not one.comparing]
    registered = _third_party()
    taken = {one.key for one in (*built_in(), *registered)}
    analyses = [*own, *registered, *_not_registered(also, taken)]
    known = [one.key for one in analyses]
    unknown = [key for key in only if key not in known]
    if unknown:
        raise ConfigurationError(
            f"there is no analysis {unknown[0]!r}: choose from {', '.join(known)}"
        )
    outcomes = []
    for one in analyses:
        if not only or one.key in only:
            outcome = one if isinstance(one, Outcome) else run_one(one, experiment)
            outcomes.append(outcome)
            after_each(outcome)
    return tuple(outcomes)


def run_one(analysis: Analysis, experiment: Experiment) -> Outcome:
    """Run `analysis`; an error that it raises becomes part of the outcome.

    Raises `GradflowError` if the run itself cannot be read: then no other analysis could read it.
    """
    unanswered = Outcome(
        analysis.key,
        analysis.title,
        analysis.question,
        background=analysis.background,
        length=analysis.length,
    )
    try:
        return replace(unanswered, result=analysis.run(experiment))
    except GradflowError:
        raise
    except NotApplicableError as reason:
        return replace(unanswered, not_applicable=str(reason))
    except Exception as error:  # a defect in one analysis must not hide the others
        return replace(unanswered, failure=f"{type(error).__name__}: {error}")


def _not_registered(analyses: Iterable[Analysis], taken: set[str]) -> list[Analysis]:
    """The analyses themselves, if each is one and its key is no other's."""
    for one in (found := list(analyses)):
        if not isinstance(one, Analysis):
            raise ConfigurationError(f"also= takes analyses, not {type(one).__name__}: {one!r}")
        if one.key in taken:
            raise ConfigurationError(
                f"there is an analysis {one.key!r} already: choose another key"
            )
        taken.add(one.key)
    return found


def _third_party() -> list[Analysis | Outcome]:
    """The analyses of other packages; an outcome with the failure for each that does not load."""
    found: list[Analysis | Outcome] = []
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name):
        try:
            analysis = entry.load()
            if not isinstance(analysis, Analysis):
                raise TypeError(f"{entry.value} is a {type(analysis).__name__}, not an Analysis")
            found.append(analysis)
        except Exception as error:  # a package that cannot be loaded is reported, not fatal
            failure = f"{type(error).__name__}: {error}"
            found.append(Outcome(entry.name, entry.name, "", failure=failure))
    return found
