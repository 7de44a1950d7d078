"""What `run.json` says of residual additions: how many were found, and what was looked for."""

from typing import Any

LOOKED_FOR = (
    "looked for x + f(x), also in place, on a view, by index_add, scatter_add, addcmul and lerp, "
    "with x as it is, projected, gated or mixed, where x gets a gradient, unlike a model's input"
)
NOT_LOOKED_FOR = "not looked for x - f(x), sums of stacked tensors, torch.where"
_COUNTS = ("concatenations", "other_sums", "other_changes_of_views")


class JunctionSummary:
    """Counts over all recorded passes; of what has no name, the largest count in one pass.

    Fields:
        passes: the forward passes that were searched.
        names: the names of the residual additions that were found.
    """

    def __init__(self) -> None:
        self.passes = 0
        self.names: set[str] = set()
        self._counts = dict.fromkeys(_COUNTS, 0)

    def add_pass(self, concatenations: int, other_sums: int, changes_of_views: int) -> None:
        """Add a pass with these numbers of what is not a residual addition."""
        self.passes += 1
        counts = (concatenations, other_sums, changes_of_views)
        for name, count in zip(_COUNTS, counts, strict=True):
            self._counts[name] = max(self._counts[name], count)

    def entry(self) -> dict[str, Any]:
        """Return the entry of `run.json`."""
        return {
            "found": len(self.names),
            "sentence": self._sentence(),
            "passes": self.passes,
            **self._counts,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the counts."""
        return {"passes": self.passes, "names": sorted(self.names), **self._counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the counts in `state`; those that an earlier version lacks are 0."""
        self.passes, self.names = state["passes"], set(state["names"])
        self._counts = {name: state.get(name, 0) for name in _COUNTS}

    def _sentence(self) -> str:
        if self.passes == 0:
            return "no forward pass was recorded"
        parts = [f"{len(self.names)} found" if self.names else "none found"]
        concatenations, sums, changes = self._counts.values()
        if concatenations and not self.names:
            parts.append(_plural(concatenations, "concatenation"))
        if sums:
            parts.append(f"{_plural(sums, 'other sum')} not taken for residual")
        if changes:
            parts.append(f"{_plural(changes, 'operation')} in place on a view not told")
        if not self.names:
            parts += [LOOKED_FOR, NOT_LOOKED_FOR]
        return "; ".join(parts)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
