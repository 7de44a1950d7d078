"""Errors that a user can act on: each message says what was found, where, and what to do.

The commands print such an error as one sentence and exit with code 1, or with 3 if it says that a
check failed. Any other error is a defect of gradflow and keeps its traceback.
"""

from collections.abc import Sequence
from typing import Any

_SHOWN_AT_EACH_END = 2000


def printable(text: str) -> str:
    """Return `text` as one line of printable characters; others become escapes such as `\\x1b`.

    File names, class names and run folders that we did not write may hold any characters.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


class GradflowError(Exception):
    """Base class of all errors of this package."""

    def __str__(self) -> str:
        text = printable(super().__str__())
        # The middle is cut out: what to do stands at the end of a message.
        return (
            text
            if len(text) <= 2 * _SHOWN_AT_EACH_END
            else f"{text[:_SHOWN_AT_EACH_END]} … {text[-_SHOWN_AT_EACH_END:]}"
        )


class ConfigurationError(GradflowError):
    """An option or argument asks for something that cannot be done."""


class DataError(GradflowError):
    """A data set is missing, damaged, or unfit for training."""


class RunError(GradflowError):
    """A run folder is missing, damaged, occupied, or of an unknown schema."""


class TrainingError(GradflowError):
    """Training cannot go on: values are no longer finite."""


class TracingError(GradflowError):
    """A model, or the way it is used, cannot be traced; the message names the page on what can."""

    def __str__(self) -> str:
        return f"{super().__str__()} (see docs/reference/tracer.md)"


class CheckFailedError(GradflowError):
    """A recorded training has what it was checked for, such as dead units.

    Fields:
        sentences: what was found, a sentence for each finding that fails.
        findings: those findings (`analyses.result.Finding`).
        next_steps: what to do about each of `sentences`; empty where that is not known.
    """

    def __init__(
        self,
        sentences: Sequence[str],
        findings: Sequence[Any] = (),
        next_steps: Sequence[str] = (),
    ) -> None:
        super().__init__(sentences, findings, next_steps)  # so that it can be sent to a process
        self.sentences = tuple(sentences)
        self.findings = tuple(findings)
        self.next_steps = tuple(next_steps) or ("",) * len(self.sentences)

    def __str__(self) -> str:
        return printable(" ".join(self.sentences))
