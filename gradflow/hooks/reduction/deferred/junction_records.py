"""What is recorded at the residual additions of a step: one by one, then in arrays."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.reduction.deferred.waiting import DeferredMoments
from gradflow.hooks.reduction.moments import Moments
from gradflow.hooks.reduction.parts import Part
from gradflow.hooks.reduction.statistics.tables import packed_in_order, statistics_of

Seen = Moments | DeferredMoments
Products = Tensor | np.ndarray


@dataclass(slots=True)
class JunctionRecord:
    """A residual addition in one step: moments of its summands, products of its gradients.

    `products` is [7] on the device, as returned by `junctions.gradient_products`; None until a
    backward pass has reached the addition. Under gradient accumulation the products of all passes
    are added up, like those of one batch. `part` says which part of the gradients they are of.
    """

    skip_type: str
    skip: Seen | None
    branch: Seen | None
    products: Products | None = None
    part: Part = Part.WHOLE

    def add_products(self, products: Products, part: Part = Part.WHOLE) -> None:
        """Add the products of one backward pass, which are of `part` of the gradients."""
        before = self.products
        self.part = part if before is None or self.part is part else Part.UNKNOWN
        if before is None:
            self.products = products
        elif isinstance(before, np.ndarray) and isinstance(products, np.ndarray):
            self.products = before + products
        else:
            self.products = torch.as_tensor(before) + torch.as_tensor(products)

    def join(self, other: "JunctionRecord") -> None:
        """Join with the same junction of another forward pass of the step."""
        self.skip, self.branch = (
            None if mine is None or theirs is None else mine.join(theirs)
            for mine, theirs in (
                (known(self.skip), known(other.skip)),
                (known(self.branch), known(other.branch)),
            )
        )


class JunctionTable(Mapping[str, JunctionRecord]):
    """The residual additions of a step that has ended.

    Fields:
        names, skip_types: of each of the J additions.
        reached: [J] whether it has products.
        products: [J, 7] those in main memory; 0 for others.
        on_device: the products of the others, by their places.
        summands: the moments of the skips and of the branches, where they are known.
    """

    __slots__ = ("_parts", "names", "on_device", "products", "reached", "skip_types", "summands")

    def __init__(self, store: Mapping[str, JunctionRecord]) -> None:
        entries = list(store.values())
        self.names = tuple(store)
        self.skip_types = tuple([one.skip_type for one in entries])
        products: list[Any] = [one.products for one in entries]
        self.on_device: dict[int, Tensor] = {}
        if set(map(type, products)) == {np.ndarray}:
            self.reached = np.ones(len(entries), bool)
            self.products = np.concatenate(products).reshape(-1, 7)
        else:
            self.reached = np.array([one is not None for one in products], bool)
            self.products = np.zeros((len(entries), 7))
            for place, one in enumerate(products):
                if isinstance(one, Tensor):
                    self.on_device[place] = one
                elif one is not None:
                    self.products[place] = one
        self.summands = (
            packed_in_order(self.names, [one.skip for one in entries]),
            packed_in_order(self.names, [one.branch for one in entries]),
        )
        parts = [one.part for one in entries]
        self._parts = None if parts.count(Part.WHOLE) == len(parts) else tuple(parts)

    @classmethod
    def of(cls, store: Mapping[str, JunctionRecord]) -> "JunctionTable":
        """Return the table of additions that are given one by one; itself, if it is a table."""
        return store if isinstance(store, JunctionTable) else cls(store)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __getitem__(self, name: str) -> JunctionRecord:
        try:
            place = self.names.index(name)
        except ValueError:
            raise KeyError(name) from None
        skips, branches = self.summands
        products: Products | None = None
        if self.reached[place]:
            products = self.on_device.get(place, self.products[place])
        part = Part.WHOLE if self._parts is None else self._parts[place]
        skip, branch = skips.get(name), branches.get(name)
        return JunctionRecord(self.skip_types[place], skip, branch, products, part)


def known(seen: Seen | None) -> Moments | None:
    """Return the moments, once they are reduced; None if they are missing."""
    return seen.moments if isinstance(seen, DeferredMoments) else seen


def products_of(tables: Sequence[JunctionTable]) -> np.ndarray:
    """Return the products of all additions that were reached, with a single transfer: [R, 7]."""
    on_device = [one for table in tables for one in table.on_device.values()]
    products = np.concatenate([table.products for table in tables])
    if on_device:
        starts = np.cumsum([0, *map(len, tables)])
        at = [start + p for start, t in zip(starts, tables, strict=False) for p in t.on_device]
        products[at] = torch.stack(on_device).cpu().double().numpy()
    reached: np.ndarray = products[np.concatenate([table.reached for table in tables])]
    return reached


def variances_of(tables: Sequence[JunctionTable], side: int) -> np.ma.MaskedArray:
    """Return the channel variances of the skips (`side` 0) or branches (1) of those reached: [R].

    Missing where the moments of the summand are.
    """
    moments = [table.summands[side] for table in tables]
    places = []  # of each addition, the row among all moments; -1 for one without
    first = 0
    for table, one in zip(tables, moments, strict=True):
        if one.names == table.names:
            found_at = np.arange(first, first + len(one))
        else:
            rows = {name: first + row for row, name in enumerate(one.names)}
            found_at = np.array([rows.get(name, -1) for name in table.names], np.int64)
        places.append(found_at[table.reached])
        first += len(one)
    at = np.concatenate(places)
    values = np.zeros(len(at))
    if first:
        statistics, _, _ = statistics_of(moments)
        values[at >= 0] = statistics["channel_variance"][at[at >= 0]]
    return np.ma.array(values, mask=at < 0)
