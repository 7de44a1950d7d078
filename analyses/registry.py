"""Which analyses there are, and how all of them are run over an experiment.

The built-in ones are listed here in reading order. Third parties add theirs through the
entry-point group `gradflow.analyses`, each entry naming an `Analysis`.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points

from analyses.result import AnalysisResult
from gradflow.errors import ConfigurationError, GradflowError
from gradflow.runs.reader import Experiment

ENTRY_POINT_GROUP = "gradflow.analyses"

BUILT_IN = (
    "overview",
    "learning_curves",
    "matched_comparison",
    "accuracy_jumps",
    "jump_explanation",
    "batchnorm_recalibration",
    "loss_slices",
    "gradient_profile",
    "network_drawing",
    "health_check",
    "signal_propagation",
    "magnitudes",
    "skip_carry",
    "path_lengths",
    "conductance",
    "shortcut_scaling",
    "lesions",
    "better_network",
    "classification",
    "attribution",
)

# Asked only where several experiments were put together, and before everything else.
COMPARING = ("what_changed",)


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
    """

    key: str
    title: str
    question: str
    run: Callable[[Experiment], AnalysisResult]


@dataclass(frozen=True)
class Outcome:
    """What became of one analysis: its result, or the reason why there is none."""

    key: str
    title: str
    question: str
    result: AnalysisResult | None = None
    not_applicable: str = ""
    failure: str = ""


def run_all(experiment: Experiment, only: Collection[str] = ()) -> tuple[Outcome, ...]:
    """Run every known analysis; one that fails becomes an outcome that says so.

    `only` names the analyses to run by key; empty for all.

    Raises `ConfigurationError` where it names one that is not known.
    """
    own = [*(COMPARING if experiment.parts else ()), *BUILT_IN]
    loaded = {key: import_module(f"analyses.{key}").ANALYSIS for key in own if _wanted(key, only)}
    theirs = _third_party()
    known = [*own, *(one.key for one in theirs)]
    unknown = [key for key in only if key not in known]
    if unknown:
        raise ConfigurationError(
            f"there is no analysis {unknown[0]!r}: choose from {', '.join(known)}"
        )
    return tuple(
        one if isinstance(one, Outcome) else run_one(one, experiment)
        for one in (*loaded.values(), *(one for one in theirs if _wanted(one.key, only)))
    )


def run_one(analysis: Analysis, experiment: Experiment) -> Outcome:
    """Run `analysis`; whatever it raises becomes part of the outcome.

    Raises `GradflowError` where the run itself cannot be read: no other section could be either.
    """
    identity = (analysis.key, analysis.title, analysis.question)
    try:
        return Outcome(*identity, result=analysis.run(experiment))
    except GradflowError:
        raise
    except NotApplicableError as reason:
        return Outcome(*identity, not_applicable=str(reason))
    except Exception as error:  # a defect in one section must not cost the reader the others
        return Outcome(*identity, failure=f"{type(error).__name__}: {error}")


def _wanted(key: str, only: Collection[str]) -> bool:
    return not only or key in only


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
