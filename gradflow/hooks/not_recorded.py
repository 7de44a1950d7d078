"""Says what cannot be recorded, while the training goes on."""

import warnings
from collections.abc import Callable

from gradflow.errors import TracingError


class NotRecorded:
    """Warns of each kind of thing once, and notes it in the run; with `strict`, raises it.

    Fields:
        describe: sets entries of `run.json`.
        said: what was said, by kind, also before an interruption.
    """

    def __init__(self, *, strict: bool) -> None:
        self.describe: Callable[..., None] = lambda **entries: None
        self._strict = strict
        self.said: dict[str, str] = {}
        self._warned: set[str] = set()

    def __call__(self, kind: str, message: str, cause: Exception | None = None) -> None:
        """Say `message` about what is of `kind`; `cause` is raised in its place if given.

        Raises `TracingError` with the message, or `cause`, if strict.
        """
        if self._strict:
            raise cause or TracingError(message)
        if kind not in self._warned:
            self._warned.add(kind)
            self.said.setdefault(kind, message)
            warnings.warn(f"gradflow: {message} (see docs/reference/tracer.md)", stacklevel=3)
            self.describe(not_recorded=list(self.said.values()))
