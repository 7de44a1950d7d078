"""The guided tour: questions to a class, each about a figure of the report, with its answer."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from analyses.registry import Outcome
from analyses.result import AnalysisResult
from analyses.wording.translatable import Joined, message
from reports.document.sections import group_by_topic
from reports.elements import Claim, FigureElement, Section, TourStep

# Fewer are not a tour.
FEWEST_STEPS = 3


@dataclass(frozen=True)
class _Question:
    """A step that a report may have.

    Fields:
        analysis, topic: the findings that answer it; `topic` is the start of their topic.
        text: what is asked before the answer is shown.
        look: where to look, and what the picture would show.
    """

    analysis: str
    topic: str
    text: str
    look: str


# In the order of an argument: what is seen, what was claimed, what was found, what follows.
QUESTIONS = (
    _Question(
        "accuracy_jumps",
        "jumps",
        "Validation accuracy goes up and down between epochs. Is that more than chance?",
        "Find the largest fall. The validation images are a sample: another sample would give "
        "other values. How large would a fall have to be before you believe it?",
    ),
    _Question(
        "gradient_profile",
        "vanish",
        "A common explanation is that the gradients vanish. What would this figure show if they "
        "did?",
        "Read the figure from the last layer back to the first. Vanishing gradients would become "
        "smaller at each layer on the way to the input.",
    ),
    _Question(
        "batchnorm_recalibration",
        "stale-statistics",
        "Now no weight is changed. Only the means and variances that batch normalization uses for "
        "validation are computed again. What happens to the jumps?",
        "Compare the two curves of each network. Where they part, the weights were better than the "
        "accuracy said.",
    ),
    _Question(
        "jump_explanation",
        "explanation",
        "What were the jumps made of?",
        "The movement of accuracy is divided into parts. Guess the largest part first. What is "
        "left for the gradients to explain?",
    ),
    _Question(
        "skip_carry",
        "skips-carry",
        "A residual block adds its input to the output of its branch. By which of the two ways "
        "does more of the gradient come back?",
        "A share of 0.5 would mean that both carry the same.",
    ),
    _Question(
        "skip_scaling",
        "without-skips",
        "The skips of the trained network are turned down, step by step, to nothing. What happens "
        "to its accuracy?",
        "Guess the accuracy at the left end. The network was trained with its skips.",
    ),
    _Question(
        "lesions",
        "lesions",
        "One block is taken out of a trained network. Which network suffers more?",
        "Each block of the residual network has a way around it. What does the plain network have?",
    ),
    _Question(
        "better_network",
        "skips",
        "So is it the skips that make the residual network more accurate?",
        "For each possible reason ask: was it changed alone, by an intervention, or do the "
        "networks just differ in it? What would you measure next?",
    ),
)


def tour_of(sections: Sequence[Section], outcomes: Iterable[Outcome]) -> tuple[TourStep, ...]:
    """The steps whose questions this report answers; none if they are too few for a tour.

    `outcomes` are those of `sections`, in the same order.
    """
    answered = {
        outcome.key: (section, outcome.result)
        for section, outcome in zip(sections, outcomes, strict=True)
        if outcome.result is not None
    }
    steps = []
    for question in QUESTIONS:
        section, result = answered.get(question.analysis, (None, None))
        if section is not None and result is not None:
            steps += _steps(question, section, result)
    return tuple(steps) if len(steps) >= FEWEST_STEPS else ()


def _steps(question: _Question, section: Section, result: AnalysisResult) -> list[TourStep]:
    """The step of `question`; none if nothing was found about it."""
    for claim, group in zip(section.claims, group_by_topic(result.findings), strict=True):
        topic = group[0].topic
        if topic.startswith(question.topic):
            answer = result.together.get(topic) or Joined(message(one.meaning) for one in group)
            figure = _figure(claim, section)
            label = figure.label if figure else ""
            return [TourStep(question.text, question.look, answer, claim.anchor, label)]
    return []


def _figure(claim: Claim, section: Section) -> FigureElement | None:
    """The figure that the question is about: the claim's first, else the section's first."""
    return next(iter((*claim.figures, *section.all_figures)), None)
