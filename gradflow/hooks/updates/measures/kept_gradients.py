"""The gradients that parameters have now, and those that were kept of the step before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from torch import Tensor

from gradflow.hooks.processes.tensors import is_partial, sums_of_partial
from gradflow.hooks.recording.parameter_table import Numbers
from gradflow.hooks.reduction.deferred.same_looks import Looks
from gradflow.hooks.updates.measures.many import Seen, dense_gradient

_REQUIRES_GRAD = attrgetter("requires_grad")
_VERSION = attrgetter("_version")


class KeptGradient(NamedTuple):
    """A gradient of the previous step, its norm, whether the tensor is our own copy, and where.

    `version` is autograd's count of the changes of a tensor that is no copy, once the step has
    ended; -1 if it is not known.
    """

    tensor: Tensor
    norm: Tensor | float
    is_copy: bool
    address: int
    version: int = -1


@dataclass
class KeptBatch:
    """Gradients that were kept together: those of one optimizer.

    Fields:
        names: of their parameters.
        seen: the tensors as they were then.
        norms: theirs.
        are_copies: [n] which of the tensors are our own copies.
        versions: [n] how often each had been changed when the step had ended; -1 if unknown.
    """

    names: Sequence[str]
    seen: Seen
    norms: Numbers
    are_copies: np.ndarray
    versions: np.ndarray | None = None

    def note_versions(self) -> None:
        """The step has ended: from now on, whatever changes a tensor that is no copy spoils it.

        An optimizer may count as a change what it only reads, as fused ones do.
        """
        if not self.are_copies.all():
            self.versions = np.where(self.are_copies, -1, _versions_of(self.seen.tensors))

    def have_changed(self) -> np.ndarray:
        """Which tensors are elsewhere, or have been changed since the step had ended: [n]."""
        changed = self.seen.have_moved()
        if self.versions is not None and (self.versions >= 0).any():
            now = _versions_of(self.seen.tensors)
            changed |= (self.versions >= 0) & (self.versions != now)
        return changed

    def each(self) -> dict[str, KeptGradient]:
        """The gradients one by one, by name."""
        versions = [-1] * len(self.names) if self.versions is None else self.versions.tolist()
        places = self.seen.addresses().tolist()
        columns = self.norms.each(), self.are_copies.tolist(), places, versions
        kept = zip(self.seen.tensors, *columns, strict=True)
        return dict(zip(self.names, map(KeptGradient._make, kept), strict=True))


def batch_of(kept: Mapping[str, KeptGradient]) -> KeptBatch:
    """Put gradients that were kept into one batch."""
    norms = Numbers(len(kept))
    norms.put_each(range(len(kept)), [one.norm for one in kept.values()])
    return KeptBatch(
        list(kept),
        Seen(
            [one.tensor for one in kept.values()],
            addresses=np.array([one.address for one in kept.values()], np.int64),
        ),
        norms,
        np.array([one.is_copy for one in kept.values()], dtype=bool),
        np.array([one.version for one in kept.values()], np.int64),
    )


def _versions_of(tensors: Sequence[Tensor]) -> np.ndarray:
    try:
        return np.fromiter(map(_VERSION, tensors), np.int64, len(tensors))
    except RuntimeError:  # an inference tensor has none
        return np.full(len(tensors), -1)


class GivenGradients:
    """The gradients that parameters have now: `tensors` by `names`.

    `is_plain` says whether each is real and dense, and all of what it stands for. If a sum over
    processes is pending, it is formed here, so all processes must make this.
    """

    def __init__(
        self, names: Sequence[str], tensors: Sequence[Tensor], before: Looks | None
    ) -> None:
        self.names, self.tensors = names, tensors
        self.seen = Seen(tensors, before)
        self.is_plain = self.seen.looks.are_plain
        self._summed: dict[str, Tensor] = {}
        if not self.is_plain:
            special = zip(names, tensors, strict=True)
            self._summed = sums_of_partial(
                {n: one for n, one in special if type(one) is not Tensor}
            )

    def places(self, names: Sequence[str]) -> np.ndarray:
        """The places of `names`."""
        if len(names) == len(self.names) and list(names) == list(self.names):
            return np.arange(len(names))
        places = {name: place for place, name in enumerate(self.names)}
        return np.array([places[name] for name in names], np.int64)

    def dense_at(self, place: int) -> Tensor:
        """What this process holds of a gradient, as a dense tensor."""
        name = self.names[place]
        return self._summed[name] if name in self._summed else dense_gradient(self.tensors[place])

    def are_parts(self) -> np.ndarray:
        """Which gradients are views, or not the whole of what they stand for: [n]."""
        found = np.fromiter(map(Tensor._is_view, self.tensors), bool, len(self.tensors))
        if not self.is_plain:
            found |= np.array([one.is_sparse or is_partial(one) for one in self.tensors])
        return found

    def detached(self) -> Seen:
        """The gradients without what computed them."""
        if not any(map(_REQUIRES_GRAD, self.tensors)):
            return self.seen
        return Seen(list(map(Tensor.detach, self.tensors)), self.seen.looks)


@dataclass(frozen=True)
class GradientMeasures:
    """The norms of gradients, their cosines with the previous ones, and the norms of those.

    By the `names` of their parameters; unknown where there is no gradient to compare with.
    """

    names: Sequence[str]
    norms: Numbers
    cosines: Numbers
    previous_norms: Numbers
