"""The errors a user can act on: each message says what was found, where, and what to do.

The commands print such an error as one sentence and exit with 1; anything else is a defect of
gradflow and keeps its traceback.
"""

_SHOWN_AT_EACH_END = 2000


def printable(text: str) -> str:
    """`text` in one line of letters: what would steer a terminal shows as an escape, `\\x1b`.

    File names, class names and run folders from elsewhere may hold anything.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


class GradflowError(Exception):
    """What every error of this package derives from."""

    def __str__(self) -> str:
        text = printable(super().__str__())
        # What was found may be endless; what to do about it stands at the end.
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
    """A training cannot go on: its numbers are no longer finite."""


class TracingError(GradflowError):
    """A model or its use cannot be traced."""
