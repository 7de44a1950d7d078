"""Which analyses there are, and how all of them are run over an experiment.

An analysis is a module anywhere in this package that defines an `ANALYSIS`: it is found by that,
and stands in no list. Other packages add theirs through the entry-point group `gradflow.analyses`,
each entry naming an `Analysis`.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import walk_packages

from analyses.result import AnalysisResult
from gradflow.errors import ConfigurationError, GradflowError
from gradflow.runs.reading.run import Experiment

ENTRY_POINT_GROUP = "gradflow.analyses"


class NotApplicableError(Exception):
    """Raised by an analysis where the experiment did not record what it needs; says what."""


@dataclass(frozen=True)
class Analysis:
    """One question put to an experiment.

    Fields:
        key: unique; letters, digits and underscores.
        title: a few words, for contents and headings.
        question: the question, with its question mark.
        run: from experiment to answer; raises `NotApplicableError` where it cannot be asked.
        background: what a reader new to the subject must know first, in one sentence.
        order: the place in a report among gradflow's own analyses, lowest first; those of other
            packages come after all of these.
        comparing: asked only where several experiments are compared.
    """

    key: str
    title: str
    question: str
    run: Callable[[Experiment], AnalysisResult]
    background: str = ""
    order: int = 0
    comparing: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one analysis: its result, or the reason why there is none."""

    key: str
    title: str
    question: str
    result: AnalysisResult | None = None
    not_applicable: str = ""
    failure: str = ""
    background: str = ""


@cache
def built_in() -> tuple[Analysis, ...]:
    """gradflow's own analyses, in the order of a report."""
    home = Path(__file__).parent
    modules = (import_module(one.name) for one in walk_packages([str(home)], "analyses."))
    found = (getattr(module, "ANALYSIS", None) for module in modules)
    return tuple(sorted((one for one in found if one), key=lambda one: (one.order, one.key)))


def run_all(experiment: Experiment, only: Collection[str] = ()) -> tuple[Outcome, ...]:
    """Run every known analysis; one that fails becomes an outcome that says so.

    `only` names the analyses to run by key; empty for all.

    Raises `ConfigurationError` where it names one that is not known.
    """
    own = [one for one in built_in() if experiment.members or not one.comparing]
    analyses = [*own, *_third_party()]
    known = [one.key for one in analyses]
    unknown = [key for key in only if key not in known]
    if unknown:
        raise ConfigurationError(
            f"there is no analysis {unknown[0]!r}: choose from {', '.join(known)}"
        )
    return tuple(
        one if isinstance(one, Outcome) else run_one(one, experiment)
        for one in analyses
        if not only or one.key in only
    )


def run_one(analysis: Analysis, experiment: Experiment) -> Outcome:
    """Run `analysis`; whatever it raises becomes part of the outcome.

    Raises `GradflowError` where the run itself cannot be read: no other section could be either.
    """
    unanswered = Outcome(
        analysis.key, analysis.title, analysis.question, background=analysis.background
    )
    try:
        return replace(unanswered, result=analysis.run(experiment))
    except GradflowError:
        raise
    except NotApplicableError as reason:
        return replace(unanswered, not_applicable=str(reason))
    except Exception as error:  # a defect in one section must not cost the reader the others
        return replace(unanswered, failure=f"{type(error).__name__}: {error}")


def _third_party() -> list[Analysis | Outcome]:
    """The analyses of other packages; for one that cannot be loaded, an outcome that says so."""
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
