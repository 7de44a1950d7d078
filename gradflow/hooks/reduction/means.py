"""By which means numbers are computed in this process, for `run.json`."""

_noted: dict[str, str] = {}


def note(kind: str, words: str) -> None:
    """Note that what is of `kind`, such as layers or parameters, is computed as `words` say."""
    _noted[kind] = words


def noted() -> dict[str, str]:
    """Return the words by kind, as noted last."""
    return dict(_noted)
