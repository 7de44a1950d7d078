"""What came to a model and what left it while it was traced, for `run.json`."""

from collections.abc import Collection
from typing import Any

# A model that changes at every step would fill `run.json`.
_MOST = 100


class ModelChanges:
    """The names of observed modules and of parameters, and how they have changed.

    Fields:
        entries: the entry `model_changes` of `run.json`: for each step at which the model had
            changed the names that were added and removed; the first hundred of these steps.
    """

    def __init__(self, layers: Collection[str], parameters: Collection[str]) -> None:
        self.entries: list[dict[str, Any]] = []
        self._names = {"layers": set(layers), "parameters": set(parameters)}

    def note(self, step: int, layers: Collection[str], parameters: Collection[str]) -> bool:
        """Note the names that there are from `step` on; return whether there is a new entry."""
        entry: dict[str, Any] = {}
        for kind, names in (("layers", layers), ("parameters", parameters)):
            before, self._names[kind] = self._names[kind], set(names)
            changes = {
                f"{kind}_added": [name for name in names if name not in before],
                f"{kind}_removed": sorted(before - self._names[kind]),
            }
            entry |= {key: value for key, value in changes.items() if value}
        if not entry or len(self.entries) == _MOST:
            return False
        self.entries.append({"step": step, **entry})
        return True
